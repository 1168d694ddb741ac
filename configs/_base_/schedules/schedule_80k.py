# 80k iterations (Section 5.3); the learning rate falls to 0, where mmseg's own schedule ends at 1e-4.
_base_ = 'mmseg::_base_/schedules/schedule_80k.py'

param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=80000, by_epoch=False)]
