"""The study of selective encryption: what is played, and what follows from it."""
