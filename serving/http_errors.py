"""What errors of KServe's and FastAPI's routes are answered with: refusals, as all others."""
# ruff: noqa: ARG001  (signatures are FastAPI's)

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serving.http_door import body_of, count_refusal
from serving.refusals import Refused, refusal_from


async def answer_no_body(request: Request, error: RequestValidationError) -> JSONResponse:
    """FastAPI looks into no body (see HttpDoor), but it insists that V2 has one."""
    return await answer_refused(
        request, Refused("malformed", "expected a request in JSON, got an empty body")
    )


async def answer_error(request: Request, error: Exception) -> JSONResponse:
    """Answer what KServe's routes raise."""
    if request.method == "GET" and request.url.path.endswith((":predict", ":explain")):
        # KServe takes the verb for a part of the model's name.
        return await answer_no_route(request, HTTPException(405, headers={"allow": "POST"}))
    refusal = refusal_from(error)
    refusal.is_told = refusal.is_told or request.method == "GET"  # a probe asks for no prediction
    return await answer_refused(request, refusal)


async def answer_no_route(request: Request, error: Exception) -> JSONResponse:
    """There is nothing at this path (KServe raises NotImplementedError at versions of a model)."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        refusal = Refused(
            "wrong_method",
            "expected another method here; GET /openapi.json says how models are asked",
        )
        answer = await answer_refused(request, refusal)
        answer.headers.update(error.headers or {})
        return answer
    return await answer_refused(
        request,
        Refused("no_such_path", "there is nothing here; GET /openapi.json says what can be asked"),
    )


async def answer_refused(request: Request, refusal: Refused) -> JSONResponse:
    """Answer a refusal, by its kind."""
    count_refusal(refusal, request.url.path)
    return JSONResponse(body_of(refusal), refusal.http_status, refusal.http_headers)
