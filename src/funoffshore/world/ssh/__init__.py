"""The door to the hosts: one SSH connection per node, one round trip per look or change."""

from funoffshore.world.ssh.connection import UnknownKeyError as UnknownKeyError
from funoffshore.world.ssh.facts import CloudInit as CloudInit
from funoffshore.world.ssh.facts import CommandFact as CommandFact
from funoffshore.world.ssh.facts import ConnectFact as ConnectFact
from funoffshore.world.ssh.facts import FileFact as FileFact
from funoffshore.world.ssh.facts import FileSystem as FileSystem
from funoffshore.world.ssh.facts import HostFacts as HostFacts
from funoffshore.world.ssh.facts import ModeFact as ModeFact
from funoffshore.world.ssh.facts import Space as Space
from funoffshore.world.ssh.facts import UnitFact as UnitFact
from funoffshore.world.ssh.facts import parse as parse
from funoffshore.world.ssh.hosts import Hosts as Hosts
from funoffshore.world.ssh.known import HostKey as HostKey
from funoffshore.world.ssh.look import OBSERVED_FILES as OBSERVED_FILES
from funoffshore.world.ssh.look import OBSERVED_UNITS as OBSERVED_UNITS
from funoffshore.world.ssh.look import FileLook as FileLook
from funoffshore.world.ssh.look import FileWrite as FileWrite
from funoffshore.world.ssh.look import Look as Look
from funoffshore.world.ssh.wire import ReplyError as ReplyError
