"""Storage: tables, connections, migrations, artifacts; nothing above this room speaks SQL types or files."""
