"""Output formats: which edited configuration, of which class, opens what a step leaves."""
