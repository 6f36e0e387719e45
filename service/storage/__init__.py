"""Storage: tables, connections, migrations and artifacts; rooms above see no SQL types and no file formats."""
