"""Files for readers: `sink` is the only writer, and it is atomic; `access` says who may read."""
