"""The commands, one file per group; `app` of the room above puts them together."""
