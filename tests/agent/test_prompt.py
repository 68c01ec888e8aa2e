"""Tests what a prompt's template may do, and the errors for everything else."""

import hashlib
from pathlib import Path

import pytest

from ledgerline.agent.prompt import Prompt, PromptError

PROMPT = Path(__file__).parents[2] / "assets" / "analyst_prompt.md"

MEMORY = "How many flights? 3"


def test_variables_are_filled_in_as_they_are() -> None:
    prompt = Prompt("analyst", "Known: {{ memories }}")
    assert prompt.render(memories="<b> & {{ 7 * 7 }}") == "Known: <b> & {{ 7 * 7 }}"


def test_the_analysts_prompt_has_a_place_for_memories() -> None:
    prompt = Prompt("analyst", PROMPT.read_text())
    assert f"<memories>\n{MEMORY}\n</memories>" in prompt.render(memories=MEMORY)
    assert "memor" not in prompt.render(memories="").split("Answer in one or two sentences.")[1]


def test_a_template_is_known_by_its_hash() -> None:
    assert Prompt("a", "text").sha256 == hashlib.sha256(b"text").hexdigest() == Prompt("b", "text", 2).sha256


def test_a_missing_variable_is_reported_with_the_existing_ones() -> None:
    with pytest.raises(PromptError) as error:
        Prompt("analyst", "{{ tables }}", 7).render(memories="", question="")
    assert str(error.value) == (
        "Prompt analyst version 7 cannot be rendered: 'tables' is undefined. Use only these variables: "
        "memories, question."
    )
    with pytest.raises(PromptError, match=r"Prompt own cannot be rendered: .* Use no variables"):
        Prompt("own", "{{ tables }}").render()


@pytest.mark.parametrize(
    "template",
    [
        "{{ memories",
        "{% if memories %}",
        "{% unknown %}",
        "{{ memories | unknown }}",
        "{{ 1 / 0 }}",
        "{{ memories + 1 }}",
        "{{ memories[7:].x.y }}",
        "{{ memories.encode('no such') }}",
        "{{ [].pop() }}",
        "{{ range(1000000000) | list }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% include 'other' %}",
    ],
)
def test_a_template_that_is_wrong_is_an_error_that_names_the_prompt(template: str) -> None:
    with pytest.raises(PromptError, match="Prompt analyst version 7 cannot be rendered: "):
        Prompt("analyst", template, 7).render(memories=MEMORY)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ memories.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ '' | attr('__class__') }}",
        "{{ self.__init__.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__['os'] }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ ''.format.__self__.__class__ }}",
        "{{ '{0.__class__}'.format(memories) }}",
        "{{ '{x.__class__.__mro__}'.format_map({'x': memories}) }}",
        "{% set x = [] %}{% do x.append(1) %}",
        "{{ {}.update({'a': 1}) }}",
        "{% import os %}",
    ],
)
def test_a_template_gets_out_of_its_sandbox_in_no_way(template: str) -> None:
    with pytest.raises(PromptError, match="Prompt registered cannot be rendered"):
        Prompt("registered", template).render(memories=MEMORY)
