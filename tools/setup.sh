#!/usr/bin/env bash
# Sets up .venv with the stack of requirements.txt. Calling it again repairs what is missing and
# otherwise returns at once. Settings, all optional, kept in .venv/settings for the next calls:
#   EXTRAS                classification: mmpretrain and torchvision too, with a torch that fits (docs/classification.md)
#   STACK                 upstream (the default); onedl: the maintained fork of OpenMMLab's packages; or torch26: the
#                         oldest torch
#   PYTHON                the Python 3.11 or 3.12 to use
#   TORCH_INDEX_URL       where torch is taken from, e.g. https://download.pytorch.org/whl/cpu for the small CPU build
#   MMCV_CUDA             1: build mmcv with its CUDA ops, 0: without; default: with, where torch is a CUDA
#                         build and sees a card
#   TORCH_CUDA_ARCH_LIST  the cards to build for (default: those that are visible)
# and, for one call, MAX_JOBS: compilers that run at a time (default: one per core), and VENV: the environment's folder
# (default: .venv).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

venv=${VENV:-.venv}
settings=(STACK PYTHON EXTRAS TORCH_INDEX_URL MMCV_CUDA TORCH_CUDA_ARCH_LIST)
kept=$(cat "$venv/settings" 2>/dev/null || true)
for name in "${settings[@]}"; do
    [ -n "${!name+set}" ] || printf -v "$name" %s "$(sed -n "s/^$name=//p" <<<"$kept")"
done
case "${STACK:=upstream}" in upstream|onedl|torch26) ;; *) die "STACK must be upstream, onedl or torch26, not '$STACK'." ;; esac
[ $STACK = upstream ] || [ -z "$EXTRAS" ] || die "EXTRAS=$EXTRAS is for STACK=upstream: it was not tried with the others."
case "$EXTRAS" in ''|classification) ;; *) die "EXTRAS must be classification or empty, not '$EXTRAS'." ;; esac
# What the environment depends on; ready holds it once everything is in place.
given=$(for name in "${settings[@]}"; do echo "$name=${!name}"; done)
state=$({ pwd; cat requirements*.txt setup.cfg tools/setup.sh; echo "$given"; } | cksum)
[ "$(cat "$venv/ready" 2>/dev/null)" = "$state" ] && "$venv/bin/python" -c '' 2>/dev/null && exit 0
rm -f "$venv/ready"

supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'
python=
for candidate in ${PYTHON:-python3 python3.12 python3.11}; do
    if "$candidate" -c "$supported" 2>/dev/null; then python=$candidate; break; fi
done
[ -n "$python" ] || die "Python 3.11 or 3.12 is needed, and ${PYTHON:-python3} is $({ "${PYTHON:-python3}" --version || echo missing; } 2>/dev/null | head -n 1): install one of them, or name it with PYTHON=/path/to/python3.11."
"$python" -c 'import ensurepip, venv' 2>/dev/null || die "$python has no venv module: install it (Debian, Ubuntu: apt-get install python3-venv)."
[ -f "$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h" ] || die "$python has no C headers (Python.h), which building mmcv needs: install them (Debian, Ubuntu: apt-get install python3-dev)."
command -v "${CXX:-g++}" >/dev/null || die "no C++ compiler (${CXX:-g++}), which building mmcv needs: install it (Debian, Ubuntu: apt-get install g++)."

log=$PWD/setup.log
: >"$log"

# The log's last line that says where things stand: of a build, the last object compiled.
progress() { tail -n 200 "$log" | grep -E '^ *(\[[0-9]+/[0-9]+\]|Collecting|Downloading|Installing|Building)' | tail -n 1 | sed 's/^ *//' | cut -c -70; }

# step WHAT COMMAND...: runs a command with its output in the log, showing where it stands as time passes.
step() {
    local what=$1 start=$SECONDS begin job output; shift
    begin=$(wc -c <"$log")
    printf '== %s\n' "$what" | tee -a "$log"
    setsid "$@" >>"$log" 2>&1 </dev/null & job=$!
    trap 'kill -- -$job 2>/dev/null; exit 130' HUP INT TERM  # with all its compilers
    while kill -0 $job 2>/dev/null; do
        sleep 1
        (( (SECONDS - start) % 15 )) || printf '   %4d s  %s\n' $((SECONDS - start)) "$(progress)"
    done
    trap - HUP INT TERM
    wait $job && return
    output=$(tail -c +$((begin + 1)) "$log")
    if grep -qE 'Failed to establish a new connection|NameResolutionError|Temporary failure in name resolution|Network is unreachable|ConnectTimeoutError|Read timed out|ProxyError|SSLError|Connection (refused|reset)|RemoteDisconnected' <<<"$output"; then
        die "$what failed: the package index cannot be reached. Check the network, or name another index (PIP_INDEX_URL, TORCH_INDEX_URL), and call again; details in $log."
    elif grep -q 'No space left on device' <<<"$output"; then
        die "$what failed: the disk is full. Make room and call again; details in $log."
    elif grep -q 'No matching distribution found' <<<"$output"; then
        die "$what failed: $(grep -oE 'No matching distribution found for [^ ]+' <<<"$output" | tail -n 1) for this Python and platform; name an index that has it (PIP_INDEX_URL, TORCH_INDEX_URL) and call again; details in $log."
    elif grep -q 'fatal error: Killed' <<<"$output"; then
        die "$what failed: the compiler ran out of memory. Call again with MAX_JOBS=1; details in $log."
    fi
    tail -n 5 "$log" >&2
    die "$what failed; the end of its output is above, all of it in $log."
}

requirements=(requirements.txt ${EXTRAS:+"requirements-$EXTRAS.txt"})
[ $STACK = upstream ] || requirements+=("requirements-$STACK.txt")
pin() { grep -hE "^$1==" "${requirements[@]}" | tail -n 1; }
mmcv=$(pin '(onedl-)?mmcv')
py=$venv/bin/python
pip=("$py" -m pip --disable-pip-version-check install)

version='import sys; print(sys.version_info[:2])'
# Both stacks hold the same modules: one does not come over the other.
if ! "$py" -m pip --version >/dev/null 2>&1 || [ "$("$py" -c "$version")" != "$("$python" -c "$version")" ] ||
    [ "$(cat "$venv/stack" 2>/dev/null || echo upstream)" != $STACK ]; then
    step "creating $venv with $("$python" --version)" "$python" -m venv --clear "$venv"
fi
echo "$given" >"$venv/settings"
echo $STACK >"$venv/stack"
cp requirements.txt "$venv/requirements.txt"
if [ $STACK != upstream ]; then  # its packages take the place of those with their modules
    modules=$(sed -nE 's/^onedl-mmdetection==.*/mmdet/; s/^(onedl-)?([^=]+)==.*/\2/; /^#/!p' "requirements-$STACK.txt")
    sed -Ei "/^($(paste -sd '|' <<<"$modules"))==/d" "$venv/requirements.txt"
    cat "requirements-$STACK.txt" >>"$venv/requirements.txt"
fi
# torch comes with what it needs: a CUDA build needs CUDA's own packages.
if [ "$(cat "$venv/torch_from" 2>/dev/null)" != "$TORCH_INDEX_URL" ]; then reinstall=--force-reinstall; fi
torch=$(pin torch)
if [ "$EXTRAS" = classification ]; then
    # torchvision's ops load with the build of torch that they were made for alone, and the default index has those of
    # CUDA builds, which run on a CPU too: === takes no torch==2.13.0+cpu from elsewhere.
    torch="$torch $(pin torchvision)"
    [ -n "$TORCH_INDEX_URL" ] || torch=${torch//==/===}
fi
step "installing $torch" "${pip[@]}" ${reinstall-} ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} $torch
echo "$TORCH_INDEX_URL" >"$venv/torch_from"
step "installing what builds mmcv" "${pip[@]}" --no-deps "$(pin numpy)" "$(pin setuptools)" "$(pin wheel)" "$(pin ninja)" "$(pin psutil)" "$(pin packaging)"

# mmcv, for the CPU or for CUDA
headers=$PWD/$venv/headers
ask_torch='
import torch
card = "sm%d%d" % torch.cuda.get_device_capability() if torch.cuda.is_available() else "none"
print(torch.__version__, torch.version.cuda or "none", card)'
read -r torch_version torch_cuda card < <("$py" -c "$ask_torch" 2>>"$log") ||
    die "torch does not load: $(tail -n 1 "$log"). Remove $venv and call again."
case "${MMCV_CUDA:-auto}" in
    1) cuda=1 ;;
    0) cuda=0 ;;
    auto) if [ "$torch_cuda" != none ] && [ "$card" != none ]; then cuda=1; else cuda=0; fi ;;
    *) die "MMCV_CUDA must be 0 or 1, not '$MMCV_CUDA'." ;;
esac
if [ $cuda = 1 ]; then
    [ "$torch_cuda" != none ] || die "MMCV_CUDA=1, but torch $torch_version is a CPU build: take a CUDA build of torch (TORCH_INDEX_URL= for the default index), or set MMCV_CUDA=0."
    nvcc=$("$py" -c 'from torch.utils.cpp_extension import CUDA_HOME; print(CUDA_HOME or "")' 2>>"$log" || true)/bin/nvcc
    [ -x "$nvcc" ] || die "mmcv's CUDA ops need nvcc $torch_cuda, which is not here: install the CUDA toolkit $torch_cuda (https://developer.nvidia.com/cuda-toolkit-archive) and set CUDA_HOME to it, or set MMCV_CUDA=0 to use the CPU only."
    release=$({ "$nvcc" --version || true; } | sed -n 's/.*release \([0-9.]*\).*/\1/p')
    [ "${release%%.*}" = "${torch_cuda%%.*}" ] || die "$nvcc is of CUDA ${release:-unknown} and torch of CUDA $torch_cuda: set CUDA_HOME to a toolkit $torch_cuda, or set MMCV_CUDA=0 to use the CPU only."
    # Of the libraries whose headers torch's own include, a toolkit may lack some, which torch's CUDA packages then bring.
    rm -rf "$headers/cuda"
    for header in cuda_runtime.h cusparse.h cublas_v2.h cublasLt.h cusolverDn.h; do
        [ ! -f "${nvcc%/bin/nvcc}/include/$header" ] || continue
        found=$(find "$venv/lib" -path "*/nvidia/*/include/$header" -print -quit 2>/dev/null || true)
        [ -n "$found" ] || die "mmcv's CUDA ops need $header, which ${nvcc%/bin/nvcc}/include lacks and torch's packages do not bring: install the whole CUDA toolkit $torch_cuda (https://developer.nvidia.com/cuda-toolkit-archive), or set MMCV_CUDA=0 to use the CPU only."
        echo "   $header is not in ${nvcc%/bin/nvcc}: taking that of torch's CUDA packages"
        mkdir -p "$headers/cuda"
        ln -sf "$PWD/${found%/*}/${header%%[._LD]*}"* "$headers/cuda/"
    done
    if [ -z "$TORCH_CUDA_ARCH_LIST" ] && [ "$card" = none ]; then
        TORCH_CUDA_ARCH_LIST='7.5;8.0;8.6;9.0+PTX'
        echo "   no card is visible: building for $TORCH_CUDA_ARCH_LIST (TORCH_CUDA_ARCH_LIST chooses others)"
    fi
    flavour=cuda$torch_cuda-$(tr ' ;' '__' <<<"${TORCH_CUDA_ARCH_LIST:-$card}")
    build_env=(FORCE_CUDA=1 CPATH="$headers/cuda${CPATH:+:$CPATH}" ${TORCH_CUDA_ARCH_LIST:+TORCH_CUDA_ARCH_LIST="$TORCH_CUDA_ARCH_LIST"})
else
    flavour=cpu
    build_env=(FORCE_CUDA=0 CUDA_VISIBLE_DEVICES=)
fi
check_ops="
import mmcv, torch
from mmcv.ops import get_compiling_cuda_version, nms
built = 'cpu' if get_compiling_cuda_version() == 'not available' else 'cuda'
assert built == '$flavour'[:len(built)], f'mmcv is built for {built}, wanted: $flavour'
assert mmcv.__version__ == '${mmcv#*==}', mmcv.__version__
device = 'cuda' if built == 'cuda' and torch.cuda.is_available() else 'cpu'
nms(torch.tensor([[0., 0., 1., 1.]], device=device), torch.tensor([1.], device=device), 0.5)"
compile_flags='
import sysconfig, torch
from torch.utils.cpp_extension import BuildExtension, include_paths
print("-fPIC", "-std=c++17", "-DTORCH_API_INCLUDE_EXTENSION_H", "-DTORCH_EXTENSION_NAME=_ext", sep="\n")
if hasattr(BuildExtension, "_add_gnu_cpp_abi_flag"):  # until torch 2.6
    print(f"-D_GLIBCXX_USE_CXX11_ABI={torch._C._GLIBCXX_USE_CXX11_ABI:d}")
print(*(f"-I{path}" for path in [*include_paths(), sysconfig.get_path("include")]), sep="\n")'
# pip's own wheel cache does not know which torch a wheel was built against: one cache for each. Ops of the CPU fit
# every build of a release.
fits=$torch_version
[ $flavour != cpu ] || fits=${torch_version%+*}+cpu
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pvt_mm/mmcv-for-torch-$fits-$flavour
if [ "$(cat "$venv/mmcv_built_for" 2>/dev/null)" != "$fits $flavour" ] || ! "$py" -c "$check_ops" >/dev/null 2>&1; then
    # Most of the time of mmcv's 77 files goes into torch's headers, which are compiled once here, and into what -g
    # writes for debuggers, which -g0 takes back. CFLAGS replaces Python's own flags.
    mkdir -p "$headers"
    echo '#include <torch/types.h>' >"$headers/torch.h"
    cflags="${CFLAGS:-$("$py" -c 'import sysconfig; print(sysconfig.get_config_var("CFLAGS"))' 2>>"$log")} -g0"
    if [ -z "$(find "$cache" -name "$(sed 's/-/_/; s/==/-/' <<<"$mmcv")-*.whl" 2>/dev/null)" ]; then
        echo "== compiling torch's headers"
        mapfile -t flags < <("$py" -c "$compile_flags" 2>>"$log")
        "${CXX:-c++}" $cflags "${flags[@]}" -x c++-header "$headers/torch.h" -o "$headers/torch.h.gch" >>"$log" 2>&1 ||
            echo "   failed, so that mmcv takes about 8 minutes; details in $log"
    fi
    step "building $mmcv with its ops ($flavour; about 3 minutes on 2 cores, once)" \
        env -u PIP_NO_CACHE_DIR MMCV_WITH_OPS=1 MAX_JOBS="${MAX_JOBS:-$(nproc)}" PATH="$PWD/$venv/bin:$PATH" \
        CFLAGS="$cflags -include '$headers/torch.h'" "${build_env[@]}" \
        "${pip[@]}" --force-reinstall --cache-dir "$cache" -v --no-build-isolation --no-deps "$mmcv"
    rm -r "$headers"
    echo "$fits $flavour" >"$venv/mmcv_built_for"
fi
if [ -n "$EXTRAS" ]; then
    # mmpretrain 1.2.0 cannot be imported beside transformers 5, and needs it for other models only
    cat "requirements-$EXTRAS.txt" >>"$venv/requirements.txt"
    sed -i '/^transformers==/d' "$venv/requirements.txt"
    "$py" -m pip uninstall -y transformers >>"$log" 2>&1
    imports='mmpretrain.models'
fi
step "installing the rest of ${requirements[*]}" "${pip[@]}" --no-deps -r "$venv/requirements.txt"
if [ $STACK = onedl ]; then
    # The fork's mmengine asks where the distribution mmsegmentation lies: it gets the name too.
    alias=$(echo "$venv"/lib/python*/site-packages)/mmsegmentation-1.4.2.dist-info
    mkdir -p "$alias"
    printf 'Metadata-Version: 2.1\nName: mmsegmentation\nVersion: 1.4.2\n' >"$alias/METADATA"
    echo mmseg >"$alias/top_level.txt"
fi
step "installing pvt_mm" "${pip[@]}" --no-deps --no-build-isolation -e .

# requirements.txt has the headless twin of the opencv-python that is asked for
lacking=$("$py" -m pip check | grep -v -e '^No broken' -e 'requires opencv-python' || true)
# the fork's packages have other names than pvt_mm asks for, and imaug asks for an older
# OpenCV and for what it does not import
[ $STACK = upstream ] || lacking=$(grep -vE '^pvt[-_]mm .* mm|^imaug ' <<<"$lacking" || true)
[ -z "$lacking" ] || die "${requirements[*]} does not hold together: $(head -n 1 <<<"$lacking")."
"$py" -c "$check_ops" 2>>"$log" || die "mmcv's compiled ops do not work: $(tail -n 1 "$log"). Remove $cache and call again."
"$py" -W ignore -c '
import huggingface_hub, hypothesis, matplotlib, mmdet, mmseg, modelindex, onnx, onnxruntime, onnxscript, pvt_mm, pytest
import ruff, safetensors, sklearn, yaml, zensical
import '"${imports-transformers}" 2>>"$log" || die "something in $venv is broken: $(tail -n 1 "$log"). Remove $venv and call again."
echo "$state" >"$venv/ready"
echo "== ready: Python $("$py" -c 'import platform; print(platform.python_version())'), torch $torch_version, mmcv ops: $flavour${EXTRAS:+, $EXTRAS}"
