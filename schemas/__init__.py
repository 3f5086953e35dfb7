"""What passes between the parts of Complaint Radar: one msgspec struct per message.

Nothing here imports anything of ours. Times are integers, milliseconds since the epoch in UTC, unless a field says
otherwise. Every struct is frozen; a message is JSON on the wire (see ``schemas.codec``).
Structs that come by the thousand are hidden from the garbage collector (``gc=False``; they hold no cycles): it would walk
every block of them again and again.
"""
