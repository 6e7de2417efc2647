"""Noticing changes on disk: `watch` compares contents, which is the truth; `watcher` says when to look."""
