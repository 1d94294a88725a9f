"""Who is at the other end of a TCP connection, when that is on this machine (proc(5), /proc/net/tcp)."""

import contextlib
import ipaddress
import socket
import sys

_LISTENS = "0A"
_NOT_ACCEPTED = "0"  # its inode: the kernel has taken it for a listener, and may call it root's meanwhile
_MAPPED = "0000000000000000FFFF0000" if sys.byteorder == "little" else "00000000000000000000FFFF"  # ::ffff:0:0/96


def users_at(own: socket.socket) -> set[int]:
    """The ids of the users who may get what is sent; none when the other end is another machine's, or a container's
    that has a network of its own.
    """
    theirs, ours = own.getpeername()[:2], own.getsockname()[:2]
    pair = [_in_proc(*theirs), _in_proc(*ours)]
    port = pair[0].rpartition(":")[2]
    is_here = ipaddress.ip_address(theirs[0]).is_loopback or theirs[0] == ours[0]
    listeners = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):  # a listener of IPv6 may take connections of IPv4
        with contextlib.suppress(FileNotFoundError), open(table, encoding="ascii") as rows:
            for row in map(str.split, rows):
                ends = [end.removeprefix(_MAPPED) for end in row[1:3]]
                if row[3] == _LISTENS and ends[0] in (pair[0], f"{'0' * 8}:{port}", f"{'0' * 32}:{port}"):
                    listeners.add(int(row[7]))
                elif ends == pair:
                    if row[9] != _NOT_ACCEPTED:
                        return {int(row[7])}
                    is_here = True
    return listeners if is_here else set()


def _in_proc(host: str, port: int) -> str:
    """An address as the kernel's table has it: each 32 bits in the machine's order."""
    packed = ipaddress.ip_address(host).packed
    words = (int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4))
    return f"{''.join(f'{word:08X}' for word in words)}:{port:04X}".removeprefix(_MAPPED)
