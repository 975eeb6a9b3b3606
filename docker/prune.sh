#!/bin/sh
# Takes out of site-packages what no program of ours runs: the libraries' own tests, headers, static archives, and what serves
# other languages. docker/check.sh proves that training and serving still work.
#
#   prune.sh SITE_PACKAGES [operate]     `operate`: also what only training and serving run
set -eu
cd "$1"
# Ray for Java and C++.
rm -rf ray/jars ray/cpp
# Arrow's own servers.
rm -rf pyarrow/*flight*
# Headers for compilers, which are not here.
rm -rf pyarrow/include pyarrow/src torch/include torch/share numpy/_core/include
# Test programs in C++.
rm -rf torch/test
if [ -d torch/bin ]; then find torch/bin -type f ! -name torch_shm_manager -delete; fi
for package in networkx numpy onnx pandas psutil pyarrow ray scipy sympy; do
  if [ -d "$package" ]; then find "$package" -type d \( -name test -o -name tests \) -prune -exec rm -rf {} +; fi
done
find . -name '*.a' -delete
[ "${2:-}" = operate ] || exit 0
# ONNX Runtime for C (Python's module has its own copy), and its tools that change networks.
rm -rf onnxruntime/capi/libonnxruntime.so* onnxruntime/transformers onnxruntime/quantization onnxruntime/tools onnxruntime/datasets
# For who compiles or types code, and for tests.
rm -rf numpy/f2py numpy/distutils gymnasium/envs/mujoco gymnasium/envs/box2d
# Colours for source code.
rm -rf pygments
find . -name '*.pyi' -delete
