"""What answers behind the server: the network, the memory, or both, and their models."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from serving.caches import tell_caches_of_the_process
from serving.champion import ChampionFollower
from serving.encoding import Encoding, OwnNetwork, RemotePredictor
from serving.memory import Memory, config_from_registry
from serving.model import ServedModel
from serving.new_songs import NewSongsModel
from serving.predictor import FactorPredictor
from serving.ranking_models import FactorsModel, ListenersModel, RecommendModel, SimilarModel
from serving.scoring import Scorer
from serving.server_config import ServerConfig


class Parts(AbstractContextManager["Parts"]):
    """What answers: the network, here or elsewhere, the memory, or both."""

    def __init__(self, config: ServerConfig) -> None:
        tell_caches_of_the_process()
        self._executor = ThreadPoolExecutor(config.n_threads, thread_name_prefix="predict")
        self.follower: ChampionFollower | None = None
        self.predictor: RemotePredictor | None = None
        self.memory: Memory | None = None
        self.models: list[ServedModel] = []
        self._scorer: Scorer | None = None
        encoding: Encoding
        if config.registry is not None:
            self.follower = ChampionFollower(
                config.registry,
                self._executor,
                config.version,
                batches=config.batches,
                engine=config.engine,
            )
            predictor = FactorPredictor(self.follower, config.limits, self._executor)
            self.follower.may_take_over = self._may_take_over
            encoding = OwnNetwork(predictor)
            if config.store is None:
                self.models = [predictor]
        else:
            assert config.predictor_url is not None
            self.predictor = RemotePredictor(
                config.predictor_url, config.limits, config.predictor_key
            )
            encoding = self.predictor
        if config.store is not None:
            config_of = config_from_registry(config.registry) if config.registry else None
            self.memory = Memory(config.store, config_of, config.stale_seconds)
            self.memory.is_in_use = self._is_heard_by
            self._scorer = Scorer()
            self.models = [
                model(self.memory, encoding, self._scorer, config.limits, self._executor)
                for model in (
                    FactorsModel,
                    RecommendModel,
                    SimilarModel,
                    ListenersModel,
                    NewSongsModel,
                )
            ]

    def _is_heard_by(self, fingerprint: str) -> bool:
        """Say whether clips are heard by a version's network, whose songs are needed then: the next
        champion may have been refused, though its songs are published."""
        champion = None if self.follower is None else self.follower.current
        return champion is not None and champion.bundle.fingerprint == fingerprint

    def _may_take_over(self, fingerprint: str) -> bool:
        """Say whether another network may hear clips: not while the songs are those of the present
        one, which would leave clips without songs for as long as it takes to read the next ones."""
        known = None if self.memory is None else self.memory.current
        if known is None or known.version == fingerprint:
            return True
        champion = None if self.follower is None else self.follower.current
        return champion is None or champion.bundle.fingerprint != known.version

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)
        if self.memory is not None:
            self.memory.close()
        if self._scorer is not None:
            self._scorer.close()
