"""tinyfl's tasks, one entry each. Defaults are tuned like the algorithms'."""

from tinyfl.registry.entries import TaskEntry, by_name

FIRST_VALIDATION_DEVICE = 1 << 30
FIRST_TEST_DEVICE = 1 << 31
"""First numbers of unseen devices, for tasks that generate devices from numbers; a fleet stays below both."""

TASKS: dict[str, TaskEntry] = by_name(
    TaskEntry(
        "digits", "tinyfl.tasks.digits:digits",
        "scikit-learn's 1,797 handwritten digits of 8 x 8 pixels; a device sees five of the ten, with its own numbering, "
        "rotation and brightness",
        {"network": "mlp-64-64", "devices": 1000, "cohort": 10, "rounds": 4000, "shots": (1, 5)},
        tuned={
            "tinyreptile": {"rate": 0.1},
            "reptile": {"rate": 0.5, "rounds": 2560},
            "fedavg": {"rate": 0.2, "rounds": 3200},
            "fedprox": {"rate": 0.2, "rounds": 3200},
            "fomaml": {"rate": 0.1, "steps": 1, "outer_step": 0.003, "rounds": 2560},
            "maml": {"rate": 0.1, "outer_step": 0.003, "rounds": 2560},
            "tinymetafed": {"rate": 0.15},
            "joint": {"rate": 0.2, "cohort": 4, "rounds": 10000},
        },
        shots_per_class=True,
    ),
    TaskEntry(
        "sine", "tinyfl.tasks.sine:Sine",
        "sine waves of random amplitude and phase; a device is one wave",
        {"network": "mlp-64-64", "devices": 10000, "cohort": 1, "rounds": 31250, "shots": (10,)},
        tuned={
            "reptile": {"rate": 0.03, "rounds": 20000},
            "fedavg": {"rate": 0.02, "samples": 32, "batch": 4, "cohort": 5, "rounds": 6250},
            "fedprox": {"rate": 0.02, "samples": 32, "batch": 4, "cohort": 5, "rounds": 6250},
            "fomaml": {"rate": 0.01, "samples": 20, "outer_step": 0.003, "cohort": 2, "rounds": 8333},
            "maml": {"rate": 0.01, "steps": 5, "samples": 20, "outer_step": 0.003, "cohort": 2, "rounds": 8333},
            "tinymetafed": {"rate": 0.01},
            "joint": {"rate": 0.003},
        },
    ),
    TaskEntry(
        "npz", "tinyfl.tasks.classes:npz",
        "a user's own samples by device",
        {"network": "mlp-32", "cohort": 1, "rounds": 10000, "shots": (10,)},
        tuned={"tinyreptile": {"rate": 0.03}},
        file="an .npz file with x, y and device; a CSV, Parquet or JSON lines file; or a folder of those",
    ),
    TaskEntry(
        "omniglot", "tinyfl.tasks.omniglot:omniglot",
        "Omniglot's characters, 28 x 28 pixels; a device sees five of them, with its own numbering",
        {"network": "conv-omniglot", "devices": 10000, "cohort": 8, "rounds": 5000, "shots": (1, 5)},
        tuned={
            "tinyreptile": {"rate": 0.05, "samples": 50},
            "protonet": {"rounds": 8000},
            "embedding": {"rate": 0.02, "cohort": 1, "training_ways": 32, "rounds": 12500},
            "easy": {"rate": 0.02, "cohort": 1, "training_ways": 32, "rounds": 12500},
        },
        file="omniglot28.npz",
        shots_per_class=True,
    ),
    TaskEntry(
        "keywords", "tinyfl.tasks.keywords:keywords",
        "ten spoken words as log-mel features; a device is a speaker (Speech Commands)",
        {"network": "conv-16-32-32-32-leaky-relu", "cohort": 4, "rounds": 2000, "shots": (5, 10, 20)},
        tuned={
            "tinyreptile": {"rate": 0.02},
            "reptile": {"rate": 0.02, "rounds": 1280},
            "fedavg": {"rate": 0.02, "rounds": 1600},
            "protonet": {"outer_step": 0.005},
            "embedding": {"rate": 0.01, "cohort": 1, "rounds": 8000},
            "easy": {"rate": 0.01, "cohort": 1, "rounds": 8000},
            "joint": {"rate": 0.1},
        },
        file="an .npz file of log-mel features (tinyfl data convert keywords)",
        converter="tinyfl.tasks.keywords:arrays",
    ),
    TaskEntry(
        "activity", "tinyfl.tasks.activity:Activity",
        "six activities from a phone's accelerometer; a device is a user (WISDM)",
        {"network": "mlp-32", "cohort": 10, "rounds": 1000, "shots": (20,)},
        tuned={
            "reptile": {"rate": 0.1, "rounds": 640},
            "fedavg": {"rate": 0.02, "rounds": 800},
            "joint": {"rate": 0.2, "cohort": 20, "rounds": 500},
        },
        file="WISDM_ar_latest.tar.gz, or what tinyfl data convert activity makes of it",
        converter="tinyfl.tasks.activity:arrays",
    ),
    TaskEntry(
        "presence", "tinyfl.tasks.presence:Presence",
        "somebody in a room or nobody, in the order of time; a device is a sensor node (UCI 864 and 357)",
        {"network": "mlp-16", "cohort": 1, "rounds": 2000, "shots": (20,)},
        tuned={
            "tinyreptile": {"rate": 0.005},
            "reptile": {"rate": 0.02, "rounds": 1280},
            "fedavg": {"rate": 0.02, "rounds": 1600},
            "joint": {"rate": 0.1},
        },
        file="UCI 864 or 357 as it is downloaded, or what tinyfl data convert presence makes of it",
        converter="tinyfl.tasks.presence:arrays",
    ),
    TaskEntry(
        "sensor", "tinyfl.tasks.sensor:sensor",
        "samples of the boards' own sensors, measured on recorded ones (docs/firmware.md)",
        {"network": "mlp-32", "cohort": 4, "rounds": 200, "shots": (5,)},
        tuned={"tinyreptile": {"rate": 0.03}},
        file="recorded samples, or with --source readings (tinyfl record)",
    ),
    TaskEntry(
        "flair", "tinyfl.tasks.flair:Flair",
        "Apple's FLAIR: photos with 17 labels, or 1,628 fine ones, each a yes or a no; a device is a Flickr user",
        {"network": "dsconv-16-32-64-128", "cohort": 10, "rounds": 2000, "shots": (10,), "tasks": 500},
        tuned={"tinyreptile": {"rate": 0.1}},
        file="FLAIR's folder, or an HDF5 file that ml-flair or pfl-research made of it",
    ),
)  # fmt: skip

OF_ONE_TASK = {"label_set": "flair", "image_side": "flair", "one_alphabet": "omniglot"}
"""The settings of a single task of tinyfl."""
