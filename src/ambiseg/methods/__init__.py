"""Published methods of ambiguous segmentation, one file each, behind one interface (`Segmenter`).

`METHODS` lists them with their papers; nothing here imports torch before a method is built.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ambiseg.errors import UnknownNameError
from ambiseg.methods import settings
from ambiseg.networks.settings import UNetSettings

if TYPE_CHECKING:
    from ambiseg.labels import LabelSpace
    from ambiseg.methods.base import Segmenter


@dataclass(frozen=True)
class Method:
    """Entry of the list of methods.

    Attributes:
        name: what the command line calls it.
        summary: one line.
        settings: its settings dataclass.
        location: ``module:class``.
        citation: the paper as BibTeX.
        validation: what chooses the best weights, a key of `ambiseg.metrics.METRICS` or "loss" where sampling is dear.
        starts_from: other methods whose weights it can start from (``--init``), and how its settings and theirs give those
            that this asks for.
    """

    name: str
    summary: str
    settings: type[Any]
    location: str
    citation: str
    validation: str = "hm_iou_unique"
    starts_from: dict[str, Callable[[Any, Any], Any]] = field(default_factory=dict)


METHODS: dict[str, Method] = {
    method.name: method
    for method in [
        Method(
            name="mode-proposals",
            summary="all modes with scores and probabilities from one deterministic pass (Gerard and Sullivan)",
            settings=settings.ModeProposalsSettings,
            location="ambiseg.methods.mode_proposals:ModeProposals",
            citation="""@article{gerard_mode_proposals,
  title  = {Deterministic Mode Proposals: An Efficient Alternative to Generative Sampling
            for Ambiguous Segmentation},
  author = {Gerard, Sebastian and Sullivan, Josephine}
}""",
            starts_from={"flow-matching": settings.proposals_from_flow},
        ),
        Method(
            name="flow-matching",
            summary="samples of the distribution of masks by integrating a learnt velocity field (Lipman et al.)",
            settings=settings.FlowMatchingSettings,
            location="ambiseg.methods.flow_matching:FlowMatching",
            citation="""@inproceedings{lipman_flow_matching_2023,
  title     = {Flow Matching for Generative Modeling},
  author    = {Lipman, Yaron and Chen, Ricky T. Q. and Ben-Hamu, Heli and Nickel, Maximilian and Le, Matt},
  booktitle = {International Conference on Learning Representations},
  year      = {2023}
}""",
            validation="loss",
        ),
        Method(
            name="probabilistic-unet",
            summary="samples from one U-Net pass and a latent vector, a conditional VAE (Kohl et al.)",
            settings=settings.ProbabilisticUNetSettings,
            location="ambiseg.methods.probabilistic_unet:ProbabilisticUNet",
            citation="""@inproceedings{kohl_probabilistic_unet_2018,
  title     = {A Probabilistic {U-Net} for Segmentation of Ambiguous Images},
  author    = {Kohl, Simon A. A. and Romera-Paredes, Bernardino and Meyer, Clemens and De Fauw, Jeffrey and
               Ledsam, Joseph R. and Maier-Hein, Klaus H. and Eslami, S. M. Ali and Jimenez Rezende, Danilo and
               Ronneberger, Olaf},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2018}
}""",
        ),
        Method(
            name="ssn",
            summary="samples of a joint normal law of all logits with a low-rank covariance (Monteiro et al.)",
            settings=settings.SSNSettings,
            location="ambiseg.methods.ssn:SSN",
            citation="""@inproceedings{monteiro_ssn_2020,
  title     = {Stochastic Segmentation Networks: Modelling Spatially Correlated Aleatoric Uncertainty},
  author    = {Monteiro, Miguel and Le Folgoc, Lo{\\"i}c and Coelho de Castro, Daniel and Pawlowski, Nick and
               Marques, Bernardo and Kamnitsas, Konstantinos and van der Wilk, Mark and Glocker, Ben},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {33},
  year      = {2020}
}""",
            validation="ged",
        ),
        Method(
            name="flow-ssn",
            summary="samples of a learnt normal law of logits through a light flow (De Sousa Ribeiro et al.)",
            settings=settings.FlowSSNSettings,
            location="ambiseg.methods.flow_ssn:FlowSSN",
            citation="""@article{de_sousa_ribeiro_flow_ssn_2025,
  title  = {Flow Stochastic Segmentation Networks},
  author = {De Sousa Ribeiro, Fabio and Todd, Omar and Jones, Charles and Kori, Avinash and Mehta, Raghav
            and Glocker, Ben},
  year   = {2025}
}""",
            validation="loss",
        ),
        Method(
            name="atfm",
            summary="samples of a low-rank normal law of logits, each led to a mask by a flow (Li et al.)",
            settings=settings.ATFMSettings,
            location="ambiseg.methods.atfm:ATFM",
            citation="""@inproceedings{li_atfm_2026,
  title     = {Ambiguity-aware Truncated Flow Matching for Ambiguous Medical Image Segmentation},
  author    = {Li, Fanding and Li, Xiangyu and Su, Xianghe and Qiu, Xingyu and Dong, Suyu and Wang, Wei and
               Wang, Kuanquan and Luo, Gongning and Li, Shuo},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  year      = {2026}
}""",
            validation="loss",
            starts_from={"ssn": settings.atfm_from_ssn},
        ),
        Method(
            name="dropout-unet",
            summary="samples by dropout in the innermost levels of a U-Net, kept on (Kendall et al.)",
            settings=settings.DropoutUNetSettings,
            location="ambiseg.methods.dropout_unet:DropoutUNet",
            citation="""@article{kendall_bayesian_segnet_2015,
  title   = {Bayesian SegNet: Model Uncertainty in Deep Convolutional Encoder-Decoder Architectures
             for Scene Understanding},
  author  = {Kendall, Alex and Badrinarayanan, Vijay and Cipolla, Roberto},
  journal = {arXiv preprint arXiv:1511.02680},
  year    = {2015}
}""",
            validation="loss",
        ),
        Method(
            name="unet-ensemble",
            summary="one mask from each of several independent U-Nets (Lakshminarayanan et al.)",
            settings=settings.UNetEnsembleSettings,
            location="ambiseg.methods.unet_ensemble:UNetEnsemble",
            citation="""@inproceedings{lakshminarayanan_ensembles_2017,
  title     = {Simple and Scalable Predictive Uncertainty Estimation Using Deep Ensembles},
  author    = {Lakshminarayanan, Balaji and Pritzel, Alexander and Blundell, Charles},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2017}
}""",
        ),
        Method(
            name="m-heads",
            summary="one mask from each of M heads, trained by the loss of the best head (Rupprecht et al.)",
            settings=settings.MHeadsSettings,
            location="ambiseg.methods.m_heads:MHeads",
            citation="""@inproceedings{rupprecht_uncertain_world_2017,
  title     = {Learning in an Uncertain World: Representing Ambiguity Through Multiple Hypotheses},
  author    = {Rupprecht, Christian and Laina, Iro and DiPietro, Robert and Baust, Maximilian and Tombari, Federico
               and Navab, Nassir and Hager, Gregory D.},
  booktitle = {International Conference on Computer Vision},
  year      = {2017}
}""",
        ),
        Method(
            name="image2image-vae",
            summary="samples from a latent of a fixed prior that enters a U-Net with the image (Zhu et al.)",
            settings=settings.Image2ImageVAESettings,
            location="ambiseg.methods.image2image_vae:Image2ImageVAE",
            citation="""@inproceedings{zhu_bicyclegan_2017,
  title     = {Toward Multimodal Image-to-Image Translation},
  author    = {Zhu, Jun-Yan and Zhang, Richard and Pathak, Deepak and Darrell, Trevor and Efros, Alexei A.
               and Wang, Oliver and Shechtman, Eli},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2017}
}""",
            validation="loss",
        ),
        Method(
            name="mose",
            summary="weighted samples of a few stochastic experts from one U-Net pass (Gao et al.)",
            settings=settings.MoSESettings,
            location="ambiseg.methods.mose:MoSE",
            citation="""@inproceedings{gao_mose_2023,
  title     = {Modeling Multimodal Aleatoric Uncertainty in Segmentation with Mixture of Stochastic Experts},
  author    = {Gao, Zhitong and Chen, Yucong and Zhang, Chuyu and He, Xuming},
  booktitle = {International Conference on Learning Representations},
  year      = {2023}
}""",
            validation="ged",
        ),
    ]
}


def method_info(name: str) -> Method:
    """The entry of a method.

    Raises:
        UnknownNameError: no such method; the message suggests the nearest name.

    Example:
        >>> method_info("mode-proposals").settings().proposals
        16
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    return METHODS[name]


def build(
    name: str,
    in_channels: int,
    labels: LabelSpace,
    backbone: UNetSettings | None = None,
    settings: Any = None,
) -> Segmenter:
    """Build a method by name; settings default to the paper's.

    Raises:
        UnknownNameError: no such method.
    """
    entry = method_info(name)
    module, cls = entry.location.split(":")
    segmenter: Segmenter = getattr(importlib.import_module(module), cls)(
        in_channels, labels, backbone or UNetSettings(), settings or entry.settings()
    )
    return segmenter
