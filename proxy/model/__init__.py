"""The words: frozen records, enums and errors that every other room speaks in. No I/O, no clock, no dice."""
