"""The site: `sphinx-build -W --keep-going -b html docs build/docs`."""

project = "docxy"
copyright = "the docxy maintainers"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["build"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
html_theme = "furo"
html_title = "docxy"
# Two dashes before an option stay two dashes.
smartquotes = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]
nitpicky = True
# Links within the site are checked by the build; nothing outside is contacted.
linkcheck_ignore = [r"https?://.*"]
