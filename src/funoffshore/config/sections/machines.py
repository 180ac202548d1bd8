"""Keys of the machines: how many, how large, what hardware they have, how they are backed up and reached."""

from __future__ import annotations

from funoffshore.config import hosts, kinds, knownhosts, kubernetes, proxmox
from funoffshore.config.kinds import one_of, whole
from funoffshore.config.sections.key import Key, Section

MACHINES = Section(
    "Machines",
    "One machine can differ: NODE_C1_…, NODE_W2_… with MACHINE, IP, IPV6, LABELS, TAINTS, and where fo makes it VMID, "
    "CORES, MEMORY_MIB, DISK_GIB, DATA_DISK_GIB, PROXMOX_NODE, PCI or USB, like NODE_W2_MEMORY_MIB=16384 or "
    'NODE_W2_LABELS="disk=ssd,zone=attic". A VMID given so is kept: when it is taken, fo stops. PCI and USB name '
    "resource mappings (Datacenter, Resource Mappings), like NODE_W1_PCI=gpu for transcoding.",
    (
        Key("CONTROLLERS", kinds.ODD, "Machines that run the Kubernetes API and etcd. Odd, as etcd needs "
            "a majority: 3 survive the loss of one, 5 of two.", "3"),
        Key("CONTROLLER_FIRST_IP", kinds.ADDRESS, "Address of the first controller; the others follow it. May be empty "
            "when each has its own (NODE_C1_IP).", None, example="192.168.1.41", lab="{controller}",
            required_for="controllers"),
        Key("CONTROLLER_TAINTS", kubernetes.TAINTS, "Taints of the controllers that keep applications off them, like "
            '"node-role.kubernetes.io/control-plane:NoSchedule"; needs workers. NODE_C1_TAINTS takes their place for '
            "one."),
        Key("CONTROLLER_CORES", whole(1, 256), "Virtual CPUs of a controller.", "2"),
        Key("CONTROLLER_MEMORY_MIB", whole(2048, 4_194_304), "Memory of a controller; K3s with etcd needs 2048.",
            "4096", unit="MiB"),
        Key("CONTROLLER_DISK_GIB", whole(10, 65_536), "Disk of a controller; etcd wants a fast one.", "32",
            unit="GiB"),
        Key("CONTROLLER_DATA_DISK_GIB", proxmox.DATA_DISK, "Second disk of a controller, for K3s' data. 0: none, the "
            "data lies on the first.", "0", unit="GiB"),
        Key("WORKERS", whole(0, 100), "Machines that run the applications. 0: the controllers do.", "2"),
        Key("WORKER_FIRST_IP", kinds.ADDRESS, "Address of the first worker; the others follow it. May be empty "
            "without workers.", "", example="192.168.1.51", lab="{worker}"),
        Key("WORKER_CORES", whole(1, 256), "Virtual CPUs of a worker.", "4"),
        Key("WORKER_MEMORY_MIB", whole(1024, 4_194_304), "Memory of a worker.", "8192", unit="MiB"),
        Key("WORKER_DISK_GIB", whole(10, 65_536), "Disk of a worker; volumes of local-path live on it, unless it "
            "has a second one.", "64", unit="GiB"),
        Key("WORKER_DATA_DISK_GIB", proxmox.DATA_DISK, "Second disk of a worker, for K3s' data: images, containers, "
            "volumes of local-path. 0: none.", "0", unit="GiB"),
    ),
)  # fmt: skip

HARDWARE = Section(
    "Hardware",
    "What all machines have in common. A change of it waits until `fo bootstrap` may restart machines.",
    (
        Key("CPU_TYPE", proxmox.CPU, "CPU that the machines see. host is fastest, and then they move only between "
            "equal CPUs; a database may want x86-64-v3. Every Proxmox node must be able to give it.", "x86-64-v2-AES"),
        Key("UEFI", kinds.SWITCH, "Start by UEFI instead of BIOS. Some graphics cards need it when passed through.",
            "false"),
        Key("FIREWALL", kinds.SWITCH, "Guard the machines with Proxmox' firewall, open only for SSH, K3s and what it "
            "serves. Has no effect while the firewall of the datacenter is off.", "false"),
        Key("ONBOOT", kinds.SWITCH, "Start the machines when their Proxmox node starts.", "true"),
        Key("STARTUP_ORDER", proxmox.STARTUP, "When they start, and for how many seconds Proxmox waits. Empty: as it "
            "comes, and the token needs no Sys.Modify on /."),
        Key("WATCHDOG", kinds.SWITCH, "A watchdog that resets a machine whose kernel hangs.", "false"),
        Key("MACHINE_TAGS", proxmox.TAGS, "Further tags, for your own filters in Proxmox."),
    ),
)  # fmt: skip

BACKUP = Section(
    "VM backups",
    "Whole machines, by Proxmox itself. The applications' data has backups of its own, see BACKUP_PASSWORD.",
    (
        Key("VM_BACKUP_STORAGE", proxmox.STORAGE, "Storage for the backups, best a Proxmox Backup Server. Empty: fo "
            "makes no backup job."),
        Key("VM_BACKUP_SCHEDULE", proxmox.SCHEDULE, "When the job runs.", "02:30"),
        Key("VM_BACKUP_KEEP", proxmox.KEEP, "Which backups stay when older ones are pruned.",
            "keep-daily=7,keep-weekly=4"),
    ),
)  # fmt: skip

SSH = Section(
    "SSH",
    "How fo reaches the machines: with an ed25519 key, and with host keys that are known before it says anything.",
    (
        Key("SSH_USER", kinds.USER, "User that fo logs in as. cloud-init makes it on machines that fo makes; on "
            "existing ones it must be there, with sudo, or be root.", "fo"),
        Key("SSH_PORT", whole(1, 65535), "Port of sshd on the machines.", "22", lab="2222"),
        Key("SSH_AUTH", one_of("key", "file", "agent"), "Who holds the key that fo logs in with. key: this file "
            "(SSH_PRIVATE_KEY). file: a key file on this computer (SSH_KEY_FILE). agent: an SSH agent (SSH_AUTH_SOCK), "
            "which may keep it in hardware.", "key"),
        Key("SSH_PRIVATE_KEY", kinds.SSH_KEY, "Key that fo logs in with: an OpenSSH ed25519 private key without "
            "passphrase, base64 on one line (base64 -w0 <file>). Only with SSH_AUTH=key.", None, secret=True,
            generate="ssh-key", required_for="key"),
        Key("SSH_KEY_FILE", hosts.PATH, "An OpenSSH ed25519 private key file of your own, mode 0600. Only with "
            "SSH_AUTH=file.", None, required_for="file"),
        Key("SSH_KEY_PASSPHRASE", kinds.PASSPHRASE, "Opens SSH_KEY_FILE, where that has a passphrase.", secret=True),
        Key("SSH_PUBLIC_KEY", hosts.PUBLIC_KEY, "The public half of the key in the agent, as ssh-add -L shows it: fo "
            "offers this one alone.", None, required_for="agent"),
        Key("SSH_SUDO_PASSWORD", kinds.PASSPHRASE, "What sudo asks SSH_USER for, on existing machines where it asks. "
            "It goes to sudo's standard input, never onto a command line.", secret=True),
        Key("HOST_KEY_SEED", kinds.HEX64, "Seed of the host keys of the machines that fo makes, so that they are known "
            "before the first connection.", None, secret=True, generate="hex64", required_for="made"),
        Key("SSH_TRUST", one_of("seed", "agent", "first-use", "known"), "How fo knows a host key. For machines that "
            "it makes, seed: fo made it, and the ISO carries it; agent: read by the guest agent, over Proxmox' API. "
            "For existing ones, known: it stands in SSH_KNOWN_HOSTS. For both, first-use: what the machine shows at "
            "the first connection is believed, recorded and printed; whoever sits in between is, too. In a cluster of "
            "both it speaks of those that fo makes. Empty: seed for these; existing ones are known where "
            "SSH_KNOWN_HOSTS is given, and first-use where it is not."),
        Key("SSH_KNOWN_HOSTS", knownhosts.KNOWN_HOSTS, "Host keys of the existing machines: lines as in known_hosts, "
            'with ";" between them, in quotes. Read them at the machines (cat /etc/ssh/ssh_host_ed25519_key.pub), not '
            "through ssh-keyscan. Once given, every existing machine needs an ed25519 key there, by its address or "
            "name ([address]:port when SSH_PORT is not 22)."),
        Key("SSH_JUMP", hosts.JUMP, "A host that every connection goes through, user@host or user@host:port; fo logs "
            "in there with the same key. Empty: machines are reached directly."),
        Key("SSH_JUMP_HOST_KEY", hosts.PUBLIC_KEY, "The jump host's ed25519 host key, from its "
            "/etc/ssh/ssh_host_ed25519_key.pub."),
    ),
)  # fmt: skip
