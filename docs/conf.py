"""The documentation as a site: `make docs`. The pages are Markdown that reads as well on a forge."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import seqkd_jax  # noqa: E402  (from this checkout)

project = "seqkd_jax"
author = "seqkd_jax authors"
version = release = seqkd_jax.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
smartquotes = False  # -- starts an option
html_theme = "furo"
html_title = f"seqkd_jax {version}"

myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # generated pages may skip a level

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True

CODE = re.compile(r"`([^`]+)`")


def links_out_of_the_site(app, page, source):
    """A link to a file beside docs/, which a forge follows, becomes the file's name: it is not part of the site."""
    here = Path(app.srcdir) / page

    def replaced(match):
        text, target = match.groups()
        path = target.partition("#")[0]
        outside = path and "://" not in path and not (here.parent / path).resolve().is_relative_to(app.srcdir)
        return f"{text} (`{(here.parent / path).resolve().relative_to(ROOT)}`)" if outside else match.group(0)

    source[0] = re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", replaced, source[0])


def docstrings_are_plain_text(app, what, name, obj, options, lines):
    """Our docstrings are prose with `code`, not reStructuredText: its marks are escaped, tables kept as they are."""
    plain = []
    for paragraph in "\n".join(lines).split("\n\n"):
        rows = paragraph.splitlines()
        if any(row.startswith(" ") or re.search(r"\S {3,}\S", row) for row in rows):
            plain += ["::", "", *(f"  {row}" for row in rows), ""]
        else:
            parts = CODE.split(paragraph)
            parts[::2] = [re.sub(r"([*|_\\])", r"\\\1", part) for part in parts[::2]]
            parts[1::2] = [f"``{part}``" for part in parts[1::2]]
            plain += ["".join(parts), ""]
    lines[:] = "\n".join(plain).splitlines()


def setup(app):
    """Called by Sphinx: registers what is changed in pages and docstrings before they are read."""
    app.connect("source-read", links_out_of_the_site)
    app.connect("autodoc-process-docstring", docstrings_are_plain_text)
