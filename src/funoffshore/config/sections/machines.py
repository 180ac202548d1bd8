"""Keys of the machines: how many, how large, what hardware they have, how they are backed up and reached."""

from __future__ import annotations

from funoffshore.config import kinds, proxmox
from funoffshore.config.kinds import one_of, whole
from funoffshore.config.sections.key import Key, Section

MACHINES = Section(
    "Machines",
    "One machine can differ: NODE_C1_…, NODE_W2_… with IP, VMID, CORES, MEMORY_MIB, DISK_GIB, DATA_DISK_GIB, "
    "PROXMOX_NODE, PCI or USB, like NODE_W2_MEMORY_MIB=16384. A VMID given so is kept: when it is taken, fo stops. PCI "
    "and USB name resource mappings (Datacenter, Resource Mappings), like NODE_W1_PCI=gpu for transcoding.",
    (
        Key("CONTROLLERS", kinds.ODD, "Machines that run the Kubernetes API and etcd. Odd, as etcd needs "
            "a majority: 3 survive the loss of one, 5 of two.", "3"),
        Key("CONTROLLER_FIRST_IP", kinds.ADDRESS, "Address of the first controller; the others follow it.", None,
            example="192.168.1.41", lab="{controller}"),
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
    "",
    (
        Key("SSH_USER", kinds.USER, "User that fo logs in as; cloud-init makes it, with sudo.", "fo"),
        Key("SSH_PORT", whole(1, 65535), "Port of sshd on the machines.", "22", lab="2222"),
        Key("SSH_PRIVATE_KEY", kinds.SSH_KEY, "Key that fo logs in with: an OpenSSH ed25519 private key without "
            "passphrase, base64 on one line (base64 -w0 <file>).", None, secret=True, generate="ssh-key"),
        Key("HOST_KEY_SEED", kinds.HEX64, "Seed of the machines' host keys, so that they are known before the first "
            "connection.", None, secret=True, generate="hex64"),
        Key("SSH_TRUST", one_of("seed", "agent", "first-use"), "How fo knows a machine's host key. seed: fo made it, "
            "and the ISO carries it. agent: read by the guest agent, over Proxmox' API. first-use: what the machine "
            "shows at the first connection is believed, recorded and printed; whoever sits in between is, too.",
            "seed"),
    ),
)  # fmt: skip
