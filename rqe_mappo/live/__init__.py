"""A local web page that shows policies while they drive: `rqe-play`, see docs/play.md.

A worker process holds the simulation (`stage`), one thread plays it with the policies (`session`, `minds`, `tally`),
and a web server shows what they publish to every tab (`server`) and passes on what tabs ask for (`messages`).
"""
