"""What the user's page and the list of examples say is there."""

import argparse
import re

import pytest

from tfthaw.cli.convert import add_arguments
from workflows.table import EXAMPLES, WORKFLOWS

PAGES = (EXAMPLES.parent / "docs" / "from-code.md", EXAMPLES / "README.md")
MOST_LINES = 60


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert links
    assert not [link for link in links if not (page.parent / link).exists()]


def test_options_on_the_page_are_options_of_convert():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    known = {option for action in parser._actions for option in action.option_strings}
    text = re.sub(r"`pip install [^`]*`", "", PAGES[0].read_text())
    named = set(re.findall(r"(?<![\w-])--[a-z]+[a-z-]*", text))
    assert "--code" in named
    assert not named - known


def test_every_example_is_listed_and_tested():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    assert scripts == {workflow.example for workflow in WORKFLOWS}
    listed = set(re.findall(r"\((\w+)\.py\)", PAGES[1].read_text()))
    assert listed == scripts


def test_examples_fit_on_a_page():
    assert not [path.name for path in EXAMPLES.glob("*.py") if len(path.read_text().splitlines()) >= MOST_LINES]
