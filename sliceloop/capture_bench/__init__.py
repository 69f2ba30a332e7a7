"""The capture benchmark: slices photographed by a simulated webcam, or filmed by a real one, through the whole path.

Slices (slices) are shown (render), fed to the real camera source (feed), developed and read (path, paper_path, look),
kept (kept) and turned into figures (measures), which stand in a page with plots (report, plots, sheet). A page to film
(page) and the score of its recording (score) do the same for a real webcam.
"""
