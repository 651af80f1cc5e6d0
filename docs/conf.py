"""Configuration of Sphinx; the tables of the reference are written by ``generate.py`` first."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generate

import aiida_mlpotential

generate.use_private_configuration()
generate.write_all()

from aiida.manage.configuration import get_config  # noqa: E402 - the configuration must be private first

# Sphinx looks at every attribute of a class, also at those that AiiDA has deprecated.
get_config(create=True).set_option('warnings.showdeprecations', False)

project = 'aiida-mlpotential'
author = 'The aiida-mlpotential developers'
copyright = author
version = release = aiida_mlpotential.__version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.mathjax']
myst_enable_extensions = ['amsmath', 'deflist', 'dollarmath']
myst_heading_anchors = 3
exclude_patterns = ['_build', 'reference/generated', 'reference/measured']
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'

html_theme = 'furo'
html_static_path = ['_static']
html_css_files = ['tables.css']
html_title = f'{project} {release}'
