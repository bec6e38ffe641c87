"""An illustrated sample dataset: some yearly releases, drawn here, for trying everything out.

``years`` decides what each release holds, ``drawing`` and the scene modules below it draw,
``files`` writes pictures, ``metadata`` writes both generations of metadata, ``series`` makes it
all.  The same settings give the same bytes with the same version of Pillow.
"""
