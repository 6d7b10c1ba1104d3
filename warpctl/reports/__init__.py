"""Views of a run: the KL-reward front as numbers, table, chart and page.

Lives here: what is computed from published evaluations and manifests (numpy only), and how it is shown.
May not be here: torch; anything that decides what runs next; anything that is an input of a stage.
Jinja2 and vl-convert are imported only where a page or picture is rendered. Called by workers/report and by the CLI.
"""
