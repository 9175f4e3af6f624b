"""Which engine runs the champion's network: the fastest that answers as torch does, or torch.

ONNX Runtime is the fastest on a CPU (docs/adr/0014). It is made anew for every champion, hears the
canned clips, and is kept where it agrees with torch on each of them; else torch goes on, which is
called eager, and the log says why.
"""

from dataclasses import replace
from logging import WARNING

import numpy as np
from numpy.typing import NDArray

from needledrop.encoders.bundle import Bundle
from needledrop.encoders.cnn import CnnEncoder
from serving import metrics
from serving.logs import log_event
from serving.rehearsal import LEAST_COSINE, least_cosine

EAGER, FASTEST = "eager", "fastest"
ENGINES = (FASTEST, EAGER)
#: Between factors of the two, as a share of the largest; rounding makes about 1e-6.
_MOST_DIFFERENCE = 0.02


def with_engine(bundle: Bundle, canned_factors: NDArray[np.float32], wanted: str) -> Bundle:
    """Return a bundle whose network runs by the fastest engine that agrees with torch.

    Args:
        bundle: runs by torch.
        canned_factors: (n, k) of the canned clips, as torch has just heard them.
        wanted: one of :data:`ENGINES`; ``eager`` leaves the bundle as it is.

    Returns:
        The bundle with its engine, or as it was; the log has said which, and why.
    """
    if wanted == EAGER or not isinstance(bundle.encoder, CnnEncoder):
        return bundle
    reason, cosine, faster = "", float("nan"), bundle
    try:
        from needledrop.encoders.onnx_engine import OnnxEngine

        engine = OnnxEngine(bundle.encoder.network)
        faster = replace(bundle, encoder=replace(bundle.encoder, engine=engine))
        factors = faster.hear_canned_clips()
        cosine = agreement(bundle.encoder, factors, canned_factors)
        far = float(np.abs(factors - canned_factors).max() / np.abs(canned_factors).max())
        if not (cosine >= LEAST_COSINE and far <= _MOST_DIFFERENCE):
            reason = (
                f"expected ONNX Runtime's factors of the canned clips to be torch's (cosine at "
                f"least {LEAST_COSINE}, and as long), got a cosine of {cosine:.4f} and a "
                f"difference of {100 * far:.1f} % of the largest factor"
            )
    except ImportError as error:
        reason = f"expected onnxruntime, found no {error.name}; install it"
    except Exception as error:  # whatever ails an engine, torch answers
        reason = f"expected ONNX Runtime to run the network, got {type(error).__name__}: {error}"
    if reason:
        metrics.ENGINE_REFUSALS.inc()
        log_event("engine_eager", WARNING, bundle=bundle.fingerprint, reason=reason[:500])
        return bundle
    log_event("engine_kept", engine=engine.name, bundle=bundle.fingerprint, cosine=round(cosine, 9))
    return faster


def engine_name(bundle: Bundle) -> str:
    """Return the name of what runs a bundle's network."""
    engine = bundle.encoder.engine if isinstance(bundle.encoder, CnnEncoder) else None
    return engine.name if engine is not None else EAGER


def agreement(
    encoder: CnnEncoder, factors: NDArray[np.float32], expected: NDArray[np.float32]
) -> float:
    """Return the least cosine of (n, k) factors with those expected, a clip each.

    The mean song's factors, which are the same for every clip, could hide that the network's part
    is another: so the cosine counts also without them.
    """
    mean = np.float32(encoder.scaler.stretch) * encoder.scaler.mean
    return min(least_cosine(factors, expected), least_cosine(factors - mean, expected - mean))
