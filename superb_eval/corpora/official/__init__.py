"""Readers of the official corpora, in the layouts in which they are published.

| task | module | corpus | files read, besides the audio |
| --- | --- | --- | --- |
| ASR | `librispeech` | LibriSpeech | `*.trans.txt` of each chapter |
| PR | `librispeech_phones` | LibriSpeech | the same, and two pronunciation lexicons |
| KS | `speech_commands` | Speech Commands v0.01 | none: folders are classes |
| QbE | `quesst14` | QUESST 2014 | `scoring/`: lists of audio, ground truth |
| SID | `voxceleb1` | VoxCeleb1 | `iden_split.txt` |
| ASV | `voxceleb1_trials` | VoxCeleb1 | `voxceleb1_test_v2.txt` |
| SD | `librimix` | Libri2Mix | `wav.scp`, `reco2dur`, `rttm`; or metadata CSV and RTTM |
| IC | `fluent_speech_commands` | Fluent Speech Commands | `data/*_data.csv` |
| SF | `snips` | Audio SNIPS | `all.iob.snips.txt`, `slots.txt` |
| ER | `iemocap` | IEMOCAP | `EmoEvaluation/*.txt`; s3prl's lists where present |

Each module states the exact paths in `LAYOUT`, and has `present(root)` and `load(root, settings)`.
"""
