"""Files in and out: RAW, pictures, tables, figures, written whole."""
