"""tinyfl's algorithms, one entry each. The settings of an algorithm are its class's fields; its defaults here are for any task,
those for one task are that task's. Tuned on validation devices of other seeds, at equal sample gradients: bench/tune.py."""

from tinyfl.registry.entries import Entry, by_name

ALGORITHMS: dict[str, Entry] = by_name(
    Entry(
        "tinyreptile", "tinyfl.algorithms.tinyreptile:TinyReptile",
        "each device learns online, a sample at a time (Ren et al. 2023)",
        {"samples": 32, "batch": 1, "rate": 0.01, "outer_step": 1.0},
    ),
    Entry(
        "reptile", "tinyfl.algorithms.reptile:Reptile",
        "each device takes several steps on mini-batches (Nichol et al. 2018)",
        {"samples": 50, "batch": 10, "rate": 0.05, "outer_step": 1.0},
    ),
    Entry(
        "fedavg", "tinyfl.algorithms.fedavg:FedAvg",
        "the mean of the devices' models (McMahan et al. 2017)",
        {"samples": 40, "batch": 8, "rate": 0.05, "outer_step": 1.0},
    ),
    Entry(
        "fedprox", "tinyfl.algorithms.fedprox:FedProx",
        "FedAvg whose devices are pulled towards the common weights (Li et al. 2020)",
        {"samples": 40, "batch": 8, "rate": 0.05, "outer_step": 1.0, "pull": 0.01},
    ),
    Entry(
        "fomaml", "tinyfl.algorithms.fomaml:FOMAML",
        "each device adapts and sends a query gradient: first-order MAML (Finn et al. 2017)",
        {"samples": 50, "batch": 1, "steps": 5, "rate": 0.05, "outer_step": 0.001, "outer_optimiser": "adam"},
    ),
    Entry(
        "maml", "tinyfl.algorithms.maml:MAML",
        "MAML with second derivatives, on simulated devices only (Finn et al. 2017)",
        {"samples": 50, "batch": 1, "rate": 0.05, "outer_step": 0.001, "outer_optimiser": "adam"},
    ),
    Entry(
        "protonet", "tinyfl.algorithms.protonet:ProtoNet",
        "embeddings in which class means tell a device's classes apart (Snell et al. 2017)",
        {"samples": 30, "batch": 1, "rate": 1.0, "outer_step": 0.002, "outer_optimiser": "adam"},
    ),
    Entry(
        "embedding", "tinyfl.algorithms.embedding:Embedding",
        "one classifier of all classes; new devices store class means of its embeddings (Tian et al. 2020)",
        {"samples": 32, "batch": 1, "rate": 0.05, "outer_step": 1.0, "outer_schedule": "linear"},
    ),
    Entry(
        "easy", "tinyfl.algorithms.easy:Easy",
        "the same, with a centre, and images of new devices also moved (Bendou et al. 2022)",
        {"samples": 32, "batch": 1, "rate": 0.05, "outer_step": 1.0, "outer_schedule": "linear"},
    ),
    Entry(
        "tinymetafed", "tinyfl.algorithms.tinymetafed:TinyMetaFed",
        "the head stays on the device, and the body alone is learnt together (Ren et al. 2023)",
        {"samples": 32, "batch": 1, "rate": 0.03, "outer_step": 1.0},
    ),
    Entry(
        "joint", "tinyfl.algorithms.joint:Joint",
        "one model for all samples: the baseline without meta-learning",
        {"samples": 32, "batch": 1, "rate": 0.05, "outer_step": 1.0},
    ),
)  # fmt: skip
