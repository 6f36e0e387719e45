"""How results and progress show in a notebook: data frames, tables as HTML, and a progress bar."""
