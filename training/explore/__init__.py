"""What a data set shows before any network is trained: who is in it, how it looks, and what a network can cheat with.

counts and intensities are the paper's Figures 1 and 2, differences the tests that it claims, views and shortcuts the
audit; findings is all of it in one object, report and plots its words and pictures.
"""
