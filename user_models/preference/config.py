"""The configuration of the preference model and of its training."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Method = Literal["frozen", "lora", "full"]  # how a text encoder is tuned


class NetworkConfig(BaseModel):
    """Sizes of the preference network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int = Field(64, ge=8, description="width of the sequence Transformer, the item and the user vectors")
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    feedforward: int = Field(128, ge=8)
    window: int = Field(50, ge=2, description="tokens each attention layer looks back on, itself included")
    group: int = Field(10, ge=1, description="largest number of items in one event-group token")
    hidden: int = Field(64, ge=8, description="width of the one-hidden-layer head")
    repeat_hidden: int = Field(32, ge=4, description="width of the two hidden layers of the repeat term")
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _divides(self) -> NetworkConfig:
        if self.dim % self.heads:
            raise ValueError(f"each head takes an equal part of dim: {self.heads} heads do not divide {self.dim}")
        return self


class GraphConfig(BaseModel):
    """The graph convolution over the user-item graph."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    convolution: Literal["lightgcn", "gcn"] = "lightgcn"
    layers: int = Field(2, ge=1)
    half_life_days: float = Field(90.0, gt=0, description="an edge loses half its weight in this many days")
    fraction: float = Field(0.4, gt=0, lt=1, description="first part of each training history that forms the graph")
    id_dropout: float = Field(0.2, ge=0, lt=1, description="share of items whose id embedding is hidden at a step")
    relations: tuple[Literal["co_purchase", "knowledge"], ...] = Field(
        (), description="edges beside user-item: items bought together, facts of the data set's knowledge graph"
    )
    co_purchase_neighbours: int = Field(20, ge=1, description="items that each item is tied to by co-purchase")


class TrainingConfig(BaseModel):
    """Pre-training (next item, masked item, contrastive) and fine-tuning (responses)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pretrain_epochs: int = Field(8, ge=0)
    finetune_epochs: int = Field(4, ge=1)
    patience: int = Field(2, ge=1, description="epochs without improvement on validation before stopping")
    batch_segments: int = Field(16, ge=1)
    segment: int = Field(160, ge=8, description="tokens of a training segment that are scored")
    learning_rate: float = Field(2e-3, gt=0)
    finetune_learning_rate: float = Field(1.2e-3, gt=0)
    repeat_pace: float = Field(5.0, gt=0, description="factor on the learning rate of the repeat term")
    weight_decay: float = Field(0.03, ge=0)
    own_negatives: int = Field(32, ge=1, description="negatives among the user's own earlier items, per position")
    other_negatives: int = Field(40, ge=1, description="negatives drawn by popularity, per position")
    inner_positions: float = Field(0.25, ge=0, le=1, description="share of within-trip positions that are trained on")
    cold_share: float = Field(0.06, ge=0, lt=1, description="share of trips met as if the user had no history")
    empty_tokens: float = Field(0.15, ge=0, lt=1, description="chance of an empty slate token after a group")
    validation_users: int = Field(2500, ge=1, description="most users whose second-last trip measures an epoch")
    clip_norm: float = Field(1.0, gt=0)
    next_item: float = Field(1.0, ge=0, description="weight of the pre-training objective; 0 leaves it out")
    masked_item: float = Field(0.0, ge=0, description="likewise, of masked items")
    contrastive: float = Field(0.0, ge=0, description="likewise, of two augmented views of a history")
    mixed_precision: Literal["no", "bf16"] = Field("no", description="precision of the matrix products of training")

    @model_validator(mode="after")
    def _pretrains(self) -> TrainingConfig:
        if self.pretrain_epochs and not self.next_item + self.masked_item + self.contrastive:
            raise ValueError(
                "pre-training has no objective: give next_item, masked_item or contrastive a weight above 0, or set "
                "pretrain_epochs to 0"
            )
        return self


class TuningConfig(BaseModel):
    """How the text encoder is fitted to what is bought, before anything else is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method = "frozen"
    rank: int = Field(8, ge=1, description="LoRA: rank of the updates of all linear layers")
    steps: int = Field(200, ge=1)
    batch: int = Field(64, ge=2, description="items a step, each the next item of some and a negative of the others")
    buyers: int = Field(8, ge=1, description="histories a step that go with each of its items")
    history: int = Field(50, ge=1, description="latest distinct items of a history")
    temperature: float = Field(0.05, gt=0)
    learning_rate: float = Field(5e-4, gt=0, description="of LoRA's updates and of the projection of histories")
    full_learning_rate: float = Field(2e-5, gt=0, description="of the whole encoder, where all of it is tuned")
    clip_norm: float = Field(1.0, gt=0)
    checkpoint_steps: int = Field(50, ge=1, description="steps from one checkpoint to the next")


class RatingConfig(BaseModel):
    """The rating head and its training on a log of ratings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: int = Field(2, ge=1, description="graph convolutions over rated edges")
    heads: int = Field(8, ge=1, description="weightings of the ratings near in time")
    likeness: int = Field(16, ge=1, description="width in which two items are compared")
    window: int = Field(32, ge=1, description="ratings before a moment that are looked at, and as many after")
    hidden_share: float = Field(0.15, gt=0, le=0.5, description="share of the ratings hidden and predicted at a step")
    epochs: int = Field(60, ge=1)
    patience: int = Field(12, ge=1, description="epochs without improvement on validation before stopping")
    learning_rate: float = Field(6e-3, gt=0)
    quick_pace: float = Field(5.0, gt=0, description="factor on the learning rate of the few scalars of the head")
    weight_decay: float = Field(0.1, ge=0)
    input_dropout: float = Field(0.5, ge=0, lt=1, description="dropout on text embeddings and attributes")
    likelihood: float = Field(0.3, ge=0, description="weight of the log likelihood beside the squared error")
    validation_share: float = Field(0.1, gt=0, lt=1, description="share of the ratings carved out for early stopping")
    members: int = Field(5, ge=1, description="models, alike but for the seed, whose predictions are averaged")
    clip_norm: float = Field(1.0, gt=0)


class NextItemConfig(BaseModel):
    """Training for next items alone, on a log of events without repeats."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(60, ge=1)
    patience: int = Field(8, ge=1, description="epochs without improvement on validation before stopping")
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.03, ge=0)
    input_dropout: float = Field(0.2, ge=0, lt=1, description="dropout on text embeddings and attributes")
    segment: int = Field(150, ge=2, description="events of a training segment")
    batch: int = Field(16, ge=1, description="segments a step")
    clip_norm: float = Field(1.0, gt=0)


class ModelConfig(BaseModel):
    """Everything that shapes a preference model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: NetworkConfig = NetworkConfig()
    graph: GraphConfig = GraphConfig()
    training: TrainingConfig = TrainingConfig()
    rating: RatingConfig = RatingConfig()
    next_item: NextItemConfig = NextItemConfig()
    without: tuple[Literal["text", "graph", "sequence", "repeat"], ...] = Field(
        (), description="parts that are left out, to see what they are worth"
    )
