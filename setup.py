"""The library and the `effovpr` command without ROS: `pip install .`. With ROS, `colcon build` uses CMakeLists.txt."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import find_packages, setup

ROOT = Path(__file__).parent
# The default engine chooses from what OpenVINO gives where it has wheels.
OPENVINO_MACHINES = 'platform_machine in "x86_64 AMD64 aarch64 arm64"'
package = ElementTree.parse(ROOT / "package.xml").getroot()

setup(
    name="effovpr_ros",
    version=package.findtext("version"),
    description=package.findtext("description"),
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    keywords=["visual place recognition", "loop closure", "localization", "ROS 2", "DINOv2"],
    classifiers=[
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["effovpr_ros", "effovpr_ros.*"]),
    ext_modules=[
        Pybind11Extension(
            "effovpr_ros.matching._scoring",
            sorted(path.as_posix() for path in Path("src/scoring").glob("*.cpp")),
            depends=sorted(path.as_posix() for path in Path("src/scoring").glob("*.[hi]*")),
            cxx_std=17,
            extra_compile_args=["-O3", "-Wno-psabi"],
        )
    ],
    package_data={
        "effovpr_ros": [
            "py.typed",
            "matching/*.pyi",
            "cli/templates/*.html",
            "lab/benchmarks/*.json",
            "lab/demo_photos/*/*",
            "recognition/*.json",
            "lab/evaluation/templates/*.html",
            "features/tails/*",
            "features/projections/*.npz",
        ]
    },
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.2",
        "torchvision>=0.17",
        "timm>=1.0.15",
        "numpy>=1.24",
        "opencv-python-headless>=4.8",
        "faiss-cpu>=1.8",
        "safetensors>=0.4",
        "onnx>=1.15",
        "pillow>=10",
        "pyproj>=3.4",
        "PyYAML>=6.0",
        "rosbags>=0.10",
        "tqdm>=4.60",
        "scipy>=1.9",
        "jinja2>=3.0",
        "matplotlib>=3.6",
        "platformdirs>=3.0",
        'kornia>=0.9; python_version >= "3.11"',
        "poselib>=2.0.5",
        f"openvino>=2024.0; {OPENVINO_MACHINES}",
        f"onnxscript>=0.1; {OPENVINO_MACHINES}",
    ],
    extras_require={
        "demo": ["vizdoom>=1.2.3", "gtsam>=4.2.2", "evo>=1.28"],
        "train": ["tensorboardX>=2.6"],
        "engines": ["nncf>=2.9", "onnxruntime>=1.17"],
        "cluster": ["ray[data,serve]>=2.40", "fsspec>=2023.1"],
        "serve": ["fastapi>=0.110", "uvicorn>=0.29", "prometheus_client>=0.19"],
    },
    entry_points={"console_scripts": ["effovpr = effovpr_ros.cli.main:main"]},
)
