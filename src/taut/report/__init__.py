"""The one-page HTML report of a fit.

`content` says what a report is made of, `html.render` turns that into one self-contained page,
`graph.graph_of` and `graph.draw` make a picture of the model. Nothing here computes an estimate:
every number of the fit arrives in `content.ReportContent`.
"""
