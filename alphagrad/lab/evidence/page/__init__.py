"""The report of studies as one page that needs nothing else: HTML or Markdown."""
