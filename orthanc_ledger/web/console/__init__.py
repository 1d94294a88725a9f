"""The console: where hospital staff and the people who approve work in a browser (docs/console.md)."""
