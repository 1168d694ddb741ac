# The 1x schedule with AdamW, as the paper trains detectors with PVT (Section 5.2).
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

# 8 GPUs x 2 images; --auto-scale-lr adapts the learning rate to another batch
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=1e-4))
