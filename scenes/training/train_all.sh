#!/usr/bin/env bash
# Trains the embedded model from nothing, or further from a checkpoint, within a time budget.
#
#   VAE_MINUTES=4 TOTAL_MINUTES=9 bash scenes/training/train_all.sh OUT
#   STAGES="diffusion scores" RESUME=FOLDER_OF_TARS TOTAL_MINUTES=9 bash scenes/training/train_all.sh OUT
#   STAGES="vae classifier plain scores" START=assets/embedded-sd TRAIN_FLAGS=--ambiguous ... OUT
#
# OUT receives the model and the judge as tars of at most 15 MiB (python -m scenes.training.train unpack), the scores,
# a contact sheet and the log. The tars are renewed every two minutes and after each stage, so a run that is
# cut short still leaves its last checkpoint.
#
#   STAGES             which of "probe vae classifier diffusion plain scores" (default: all but plain, which
#                      trains the plainly trained model in place of diffusion); the probe measures which memory
#                      layout is faster
#   START              a model's folder to start from, autoencoder and words of it where the UNet has another size
#   RESUME             folder with the tars of an earlier run
#   TOTAL_MINUTES      for everything; diffusion or plain gets what the other stages leave
#   DIFFUSION_MINUTES  or its own budget, then the total plays no part
#   VAE_MINUTES, JUDGE_MINUTES, SCORE_MINUTES, PROBE_SECONDS
#   TRAIN_FLAGS        for every training stage; VAE_FLAGS, DIFFUSION_FLAGS (plain too), SCORE_FLAGS for one
#   PYTHON, WORK       the interpreter, and where checkpoints lie meanwhile
set -uo pipefail

OUT=${1:?usage: train_all.sh OUT}
STAGES=${STAGES:-probe vae classifier diffusion scores}
TOTAL_MINUTES=${TOTAL_MINUTES:-9}
VAE_MINUTES=${VAE_MINUTES:-4}
JUDGE_MINUTES=${JUDGE_MINUTES:-0.7}
SCORE_MINUTES=${SCORE_MINUTES:-0.9}
PYTHON=${PYTHON:-python3}
WORK=${WORK:-$(mktemp -d)}
MODEL=$WORK/model
JUDGE=$WORK/judge
PROBE=$WORK/probe
PROBE_SECONDS=${PROBE_SECONDS:-60}
export PYTHONUNBUFFERED=1

mkdir -p "$OUT"
exec > >(tee -a "$OUT/log.txt") 2>&1

say() { printf '== %4d s  %s\n' "$SECONDS" "$*"; }
train() { "$PYTHON" -m scenes.training.train "$@"; }
failed=0
attempt() { # attempt NAME COMMAND...: a failed stage does not stop the ones after it
    say "$1"
    if ! "${@:2}"; then
        say "$1 FAILED"
        failed=1
    fi
}

diffusion_minutes() { # what is left of the total, less 20 s to start and to save
    if [ -n "${DIFFUSION_MINUTES:-}" ]; then
        echo "$DIFFUSION_MINUTES"
    else
        "$PYTHON" -c "print(round(max(0.1, $TOTAL_MINUTES - $SCORE_MINUTES - ($SECONDS + 20) / 60), 2))"
    fi
}

layout_flag() { # channels last where the probe found that it pays
    "$PYTHON" - "$PROBE/$1.json" << 'EOF'
import json, pathlib, sys
path = pathlib.Path(sys.argv[1])
speeds = json.loads(path.read_text()) if path.exists() else {}
print("--channels-last" if speeds.get("channels_last", 0) > 1.05 * speeds.get("channels_first", 0) else "")
EOF
}

if [ -n "${START:-}" ]; then
    mkdir -p "$MODEL"
    cp -r "$START"/. "$MODEL"
    rm -f "$MODEL/README.md" "$MODEL/adaflow.json" # they speak of the other model
fi
if [ -n "${RESUME:-}" ]; then
    mkdir -p "$MODEL" "$JUDGE"
    for packed in "$RESUME"/model-*.tar; do tar xf "$packed" -C "$MODEL"; done
    for packed in "$RESUME"/judge-*.tar; do tar xf "$packed" -C "$JUDGE"; done
    cp "$RESUME"/judge-*.tar "$OUT"
fi

for stage in $STAGES; do
    resume=()
    [ -f "$MODEL/model_index.json" ] && resume=(--resume "$MODEL")
    case $stage in
    probe)
        attempt probe timeout "$PROBE_SECONDS" "$PYTHON" -m scenes.training.train probe --out "$PROBE" ${TRAIN_FLAGS:-}
        ;;
    vae)
        attempt "VAE for $VAE_MINUTES minutes" train vae --out "$MODEL" "${resume[@]}" --pack "$OUT" \
            --minutes "$VAE_MINUTES" $(layout_flag vae) ${TRAIN_FLAGS:-} ${VAE_FLAGS:-}
        ;;
    classifier)
        attempt "judge for $JUDGE_MINUTES minutes" train classifier --out "$JUDGE" "${resume[@]}" \
            --minutes "$JUDGE_MINUTES" ${TRAIN_FLAGS:-}
        [ -d "$JUDGE" ] && tar cf "$OUT/judge-1.tar" -C "$JUDGE" .
        ;;
    diffusion | plain)
        minutes=$(diffusion_minutes)
        attempt "$stage for $minutes minutes" train "$stage" --out "$MODEL" "${resume[@]}" --pack "$OUT" \
            --minutes "$minutes" $(layout_flag diffusion) ${TRAIN_FLAGS:-} ${DIFFUSION_FLAGS:-}
        ;;
    scores)
        attempt scores "$PYTHON" -m benchmarks.embedded_model --model "$MODEL" --judge "$JUDGE" \
            --json "$OUT/scores.json" --sheet "$OUT/sheet.png" ${SCORE_FLAGS:-}
        ;;
    *)
        say "no stage is called $stage"
        failed=1
        ;;
    esac
done

say "done; in $OUT:"
ls -l "$OUT"
exit "$failed"
