"""Every step is a folder with a thin component, a description of each parameter, and a README."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import docstring_parser
import pytest

COMPONENTS = Path(__file__).parents[2] / "components"
STEPS = sorted(path.parent.name for path in COMPONENTS.glob("*/component.py"))

_MOST_STATEMENTS = 12


def component_of(step: str):
    return getattr(importlib.import_module(f"components.{step}.component"), step)


def tree_of(step: str) -> ast.Module:
    return ast.parse((COMPONENTS / step / "component.py").read_text(encoding="utf-8"))


def n_statements(body: list[ast.stmt]) -> int:
    """Count what a body does: imports and docstrings don't count, a call counts once however long.

    A compound statement counts once, and so does each statement in its blocks.
    """
    n = 0
    for statement in body:
        imports = isinstance(statement, ast.Import | ast.ImportFrom)
        docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not imports and not docstring:
            blocks = ("body", "orelse", "handlers", "finalbody")
            n += 1 + sum(n_statements(getattr(statement, block, [])) for block in blocks)
    return n


def test_there_are_these_steps():
    assert STEPS == [
        "decide_promotion",
        "deploy_predictor",
        "evaluate_encoder",
        "evaluate_paper_models",
        "extract_features",
        "factorize_plays",
        "find_new_songs",
        "hear_shard",
        "plan_shards",
        "plan_trainings",
        "predict_tags",
        "publish_features",
        "report_paper",
        "score_new_songs",
        "select_plays",
        "split_songs",
        "survey_data",
        "train_encoder",
        "train_paper_model",
        "validate_plays",
    ]
    folders = {path.name for path in COMPONENTS.iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == set(STEPS)


@pytest.mark.parametrize("step", STEPS)
def test_the_function_has_the_name_of_its_folder(step):
    functions = [node for node in tree_of(step).body if isinstance(node, ast.FunctionDef)]
    assert [function.name for function in functions] == [step]
    assert component_of(step).name == step.replace("_", "-")
    assert component_of(step).component_spec.description


@pytest.mark.parametrize("step", STEPS)
def test_every_input_and_output_is_described(step):
    component = component_of(step)
    inputs, outputs = component.component_spec.inputs, component.component_spec.outputs
    assert [name for name, one in inputs.items() if not one.description] == []
    # KFP takes descriptions of inputs into its spec, of output artifacts it doesn't.
    docstring = docstring_parser.parse(inspect.getdoc(component.python_func))
    described = [parameter.arg_name for parameter in docstring.params if parameter.description]
    assert described == list(inspect.signature(component.python_func).parameters)
    assert set(described) == {*inputs, *outputs} - {"Output"}
    assert ("Output" in outputs) == (docstring.returns is not None)


@pytest.mark.parametrize("step", STEPS)
def test_the_readme_names_every_input_and_output_and_no_other(step):
    spec = component_of(step).component_spec
    readme = (COMPONENTS / step / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(f"# {step}\n")
    headings = re.findall(r"^## (.+)$", readme, re.MULTILINE)
    assert headings[:2] == ["What goes in", "What comes out"]
    goes_in, comes_out = (
        readme.split(f"## {heading}")[1].split("\n## ")[0] for heading in headings[:2]
    )
    assert _first_cells(goes_in) == set(spec.inputs)
    assert _first_cells(comes_out) == set(spec.outputs)


def _first_cells(text: str) -> set[str]:
    """The names between back quotes in the first column of a table."""
    cells = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize("step", STEPS)
def test_a_body_is_thin(step):
    [function] = [node for node in tree_of(step).body if isinstance(node, ast.FunctionDef)]
    assert 1 <= n_statements(function.body) <= _MOST_STATEMENTS
    # All that it does, it does under its journal, so that no failure goes without its sentence.
    [block] = [node for node in function.body if isinstance(node, ast.With)]
    [call] = [item.context_expr for item in block.items]
    assert ast.unparse(call.func) == "journal"
    assert step in ast.unparse(call.args[0])


def test_statements_are_counted_as_they_are_meant():
    body = """
'''What it is for.'''
import os
with one() as two:
    three = four(
        five(six()),
        seven,
    )
    if three:
        from eight import nine
        ten()
    else:
        eleven()
return three
"""
    assert n_statements(ast.parse(body).body) == 6


@pytest.mark.parametrize("step", STEPS)
def test_component_modules_import_only_what_compiling_needs(step):
    imported = []
    for node in ast.walk(tree_of(step)):
        # KFP reads the annotations themselves; as strings they would say nothing to it.
        assert not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
    for node in tree_of(step).body:
        if isinstance(node, ast.ImportFrom):
            imported.append(node.module)
        elif isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
    assert sorted(set(imported) - {"typing"}) == ["components.step", "kfp.dsl"]


MAY_USE_A_GPU = (
    *("train_encoder", "train_paper_model", "evaluate_paper_models", "predict_tags"),
    "factorize_plays",
)


def test_what_may_use_a_gpu_has_the_training_image_and_none_installs_anything():
    for step in STEPS:
        container = component_of(step).component_spec.implementation.container
        name = "train" if step in MAY_USE_A_GPU else "data"
        assert container.image == f"needledrop-{name}:0.1.0"
        assert "pip install" not in " ".join(container.command)
