"""Words and their times: WhisperX, transcript placement, and an aligner fitted on the corpus."""
