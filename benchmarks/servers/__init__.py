"""Parts of the serving benchmark: the world, our server, the peers, the load, and what is held against promises."""
