"""The tests that stand between "looks like" and "matters": one file each, and the records that they leave.

Each file measures one thing and says what came of it as a `Check`: `own_effect` (what changes without the head),
`random_heads` (is that more than without a random head), `beside_others` (what changes once other observed heads are gone),
`false_discoveries` (of all tests of a run, how many may be luck). `judging` asks them for one detector, `settling` makes
verdicts of what they say.
"""
