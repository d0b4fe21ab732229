"""Dynamic pruning of visual tokens: what of a picture the rest of the model reads, decided anew for each input.

A rule scores the tokens of one group (one picture, or all pictures of a prompt), selects some of them and says what
becomes of the others, each by a registered part of `score`, `select` and `residual`. Parts are pure functions of one
group of n tokens, with no batch dimension. Their positional parameters are what they need, by these names:

    attention     [layers, heads, queries, n]  attention probabilities that the tokens receive, in the layers and from
                                               the queries that the part's arguments `layers` and `queries` say
    logits        the same before the softmax, in float32, -inf where a mask hides a token
    hidden        [n, dim]                     what the tokens are where the rule acts
    key, value    [n, heads, size]             of the attention layer before it
    inputs,       [modules, n, dim]            what the attention and MLP modules of `layers` were given, after the
    outputs                                    norm, and what they gave
    text          [m, dim]                     text tokens at the same place
    tower_hidden  [n, dim]                     features of the vision tower
    cls           [dim]                        the tower's class token
    cls_value     [heads, size]                and its value in the layer before
    pixels        [n, p]                       grey pixels of each token's patch, 0 to 1
    grid          (rows, columns)              of the picture: n = rows · columns, row by row
    sizes         [n]                          how many tokens each stands for already; ones at first
    scores        [n]                          the rule's score; None where a selection is asked for without one
    previous      [n]                          what the same part gave for these tokens at an earlier layer, or None
    keep          int                          how many tokens to keep, 1 to n
    selection     Selection                    for residuals
    generator     torch.Generator              for what is drawn
    choose        callable                     see `compress.runtime.tokens.select.quota`
"""
