"""Materials: what tissues and things measure in HU (textbook values; cortical bone capped by the 8-bit paint)."""

AIR = -1000.0
BRONCHIAL_AIR = -940.0  # as blurred by the wall
FAT = -95.0
AIRWAY_WALL = 0.0
SKIN = 20.0
ESOPHAGUS = 30.0
SPINAL_CANAL = 30.0
BLOOD = 45.0
MUSCLE = 50.0
LIVER = 65.0

STERNUM_MARROW = 130.0
MARROW = 210.0
STERNUM_CORTEX = 420.0
PEDICLE = 480.0
SPINOUS_PROCESS = 500.0
VERTEBRA_CORTEX = 520.0  # thin: the slice averages it with marrow
CORTEX = 780.0
