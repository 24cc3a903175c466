"""A run's results as one page to look at: an HTML file that needs nothing else, no network either.

  parts      a run's directory -> `Part`, what is told of it
  page       parts -> the page, from the template, style and scripts in assets/
  markup     text, lists and tables as HTML; everything that is not ours is escaped here
  claims     claims with their verdicts
  axes       scales and ticks
  drawing    charts (`experiments.core.charts`) as SVG
  browser    translations of a test set under several systems, side by side
  ran        what ran: command, commits, versions, hashes, times

Python writes everything that can be read without a script; the scripts sort, filter and point. They run no text of
the results: those stand in the page as escaped HTML and as JSON.
"""
