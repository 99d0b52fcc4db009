"""What a user may choose: the schema of `conf/`, its composition, and messages that help.

Nothing in this room imports torch, so a mistake is answered before anything heavy is loaded.
"""
