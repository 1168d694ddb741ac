from pvt_mm.commands import main

main()
