"""Where a block keeps its coupling form, made once for as long as the attributes that it follows from stay."""

FORM = "_hybridkern_form"  # in its ``__dict__``
