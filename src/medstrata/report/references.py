"""The papers that the methods paragraph may cite, by the words with which a text cites them."""

from __future__ import annotations

REFERENCES = {
    "Ryan et al. 2022": "Ryan SM, Carlson NE, Butler H, Fingerlin TE, Maier LA, Xing F. Cluster activation mapping "
    "with application to computed tomography scans of the lung. Journal of Medical Imaging 9(2):026001, 2022. "
    "arXiv:2010.04794.",
    "Guo, Liu et al. 2017": "Guo X, Liu X, Zhu E, Yin J. Deep clustering with convolutional autoencoders. ICONIP 2017.",
    "Soleymani et al. 2022": "Soleymani F, Eslami M, Elze T, Bischl B, Rezaei M. Deep variational clustering framework "
    "for self-labeling of large-scale medical images. SPIE Medical Imaging 2022. arXiv:2109.10777.",
    "Ferrante et al. 2023": "Ferrante M, Boccato T, Spasov S, Duggento A, Toschi N. Contrastive learning for "
    "unsupervised medical image clustering and reconstruction. NLDL 2023. arXiv:2209.12005.",
    "Kart et al. 2021": "Kart T, Bai W, Glocker B, Rueckert D. DeepMCAT: large-scale deep clustering for medical image "
    "categorization. DALI at MICCAI 2021, LNCS 13003:259-267. arXiv:2110.00109.",
    "Caron et al. 2020": "Caron M, Misra I, Mairal J, Goyal P, Bojanowski P, Joulin A. Unsupervised learning of visual "
    "features by contrasting cluster assignments. NeurIPS 2020. arXiv:2006.09882.",
    "Traag et al. 2019": "Traag VA, Waltman L, van Eck NJ. From Louvain to Leiden: guaranteeing well-connected "
    "communities. Scientific Reports 9:5233, 2019.",
    "Guo, Pleiss et al. 2017": "Guo C, Pleiss G, Sun Y, Weinberger KQ. On calibration of modern neural networks. "
    "ICML 2017. arXiv:1706.04599.",
    "Vovk et al. 2005": "Vovk V, Gammerman A, Shafer G. Algorithmic learning in a random world. Springer, 2005.",
    "Hubert and Arabie 1985": "Hubert L, Arabie P. Comparing partitions. Journal of Classification 2:193-218, 1985.",
    "Hennig 2007": "Hennig C. Cluster-wise assessment of cluster stability. Computational Statistics & Data Analysis "
    "52(1):258-271, 2007.",
    "Rousseeuw 1987": "Rousseeuw PJ. Silhouettes: a graphical aid to the interpretation and validation of cluster "
    "analysis. Journal of Computational and Applied Mathematics 20:53-65, 1987.",
    "Hartigan and Hartigan 1985": "Hartigan JA, Hartigan PM. The dip test of unimodality. The Annals of Statistics "
    "13(1):70-84, 1985.",
    "Benjamini and Hochberg 1995": "Benjamini Y, Hochberg Y. Controlling the false discovery rate: a practical and "
    "powerful approach to multiple testing. Journal of the Royal Statistical Society B 57(1):289-300, 1995.",
    "Bergsma 2013": "Bergsma W. A bias-correction for Cramér's V and Tschuprow's T. Journal of the Korean Statistical "
    "Society 42(3):323-328, 2013.",
    "Sundararajan et al. 2017": "Sundararajan M, Taly A, Yan Q. Axiomatic attribution for deep networks. ICML 2017. "
    "arXiv:1703.01365.",
}
"""In the order in which a list of references gives them."""


def cited(text: str) -> list[str]:
    """Return the references that ``text`` cites, in the order of their first mention."""
    places = {text.find(words): reference for words, reference in REFERENCES.items() if words in text}
    return [places[place] for place in sorted(places)]
