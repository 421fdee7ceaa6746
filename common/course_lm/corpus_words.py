"""The word lists behind the corpus: names, places, things, and common words from which new ones are spliced.

A list is cut at commas where its entries have blanks in them ("kitchen knives"), else at blanks.
"""


def listed(text: str) -> list[str]:
    """The entries of a list that is written with commas."""
    return [" ".join(entry.split()) for entry in text.split(",")]


WOMEN = """Anna Clara Emma Greta Ida Kate Mia Olga Rosa Tina Uma Wanda Zoe Bella Diana Fiona Hanna Julia Lena Nora
Petra Sofia Ursula Vera Xenia Yara Alice Celia Edith Gloria Irene Laura Nadia Paula Sarah Viola Aisha Chloe Elena
Ingrid Kira Magda Olivia Rita Tara Wendy Lily Eve Stella Agnes Amara Astrid Beatrice Camille Charlotte Cora Daisy
Daphne Dora Eleanor Esther Flora Freya Gemma Gwen Harriet Helena Hilda Iris Ivy Jasmine Joan Josephine Judith Karla
Klara Layla Leila Louisa Lydia Marta Matilda Mei Miriam Mona Monica Nina Rachel Regina Rosalind Ruth Sabine Saskia
Selma Serena Silvia Sylvia Tamara Vivian Wilma Yasmin Yuki Yvonne""".split()
MEN = """Ben David Felix Hugo Jonas Leo Nils Paul Sam Victor Yusuf Amir Carlos Elias George Ivan Karim Marco Oscar
Quinn Rafael Thomas Walter Zeno Boris Dario Farid Henry Jacob Martin Otto Robert Tariq William Bruno Dmitri Frank
Hassan Jasper Lukas Niko Pablo Simon Vincent Omar Adam Max Noah Albert Arthur Basil Bernard Cedric Claude Cyril Dennis
Edgar Edwin Emil Erik Eugene Gabriel Gerald Gideon Harold Hector Horace Isaac Joel Julius Kenji Lars Lionel Malik
Maurice Milan Nathan Norman Oliver Pascal Patrick Pavel Philip Ralph Ravi Roland Rupert Samuel Stefan Theo Tobias Toby
Valentin""".split()
NAMES = [*WOMEN, *MEN]
CITIES = """Oslo Paris Berlin Madrid Lima Cairo Delhi Tokyo Seoul Hanoi Rome Vienna Prague Warsaw Athens Dublin Lisbon
London Boston Chicago Denver Seattle Toronto Quito Bogota Nairobi Lagos Accra Tunis Dakar Sydney Perth Auckland Beijing
Shanghai Shenzhen Chengdu Hangzhou Taipei Manila Jakarta Bangkok Singapore Mumbai Karachi Tehran Ankara Sofia Zagreb
Helsinki Stockholm Geneva Zurich Munich Hamburg Lyon Porto Naples Krakow Riga Vilnius Tallinn Minsk Kyiv
Amsterdam Antwerp Baku Barcelona Basel Belfast Bergen Bilbao Bologna Bordeaux Bremen Brisbane Bristol Budapest Calgary
Canberra Cardiff Casablanca Colombo Cologne Dallas Damascus Dhaka Dresden Edinburgh Florence Frankfurt Ghent Glasgow
Granada Graz Havana Houston Innsbruck Istanbul Izmir Kampala Leeds Leipzig Ljubljana Luanda Lusaka Malmo Marseille
Melbourne Memphis Miami Milan Montreal Muscat Nantes Odessa Osaka Ottawa Palermo Phoenix Portland Pretoria Pune Rabat
Rotterdam Salzburg Santiago Sarajevo Seville Tampere Tirana Trieste Turin Utrecht Valencia Vancouver Venice Verona
Wellington Winnipeg Xiamen Yokohama""".split()
ANIMALS = """cat dog fox owl bear wolf hare mouse horse goat duck crow frog turtle rabbit donkey sheep otter badger
squirrel hedgehog sparrow eagle swan deer beaver lizard snail whale seal parrot raven heron robin mole
alpaca antelope beetle bison buffalo butterfly camel canary chicken cobra cockatoo crab cricket dolphin dove dragonfly
elephant falcon ferret finch flamingo gecko gibbon giraffe goose gorilla hamster hawk hen hippo hyena jackal jaguar
kangaroo kingfisher kitten koala ladybird lamb lark lemur leopard lion lobster lynx magpie marmot meerkat mongoose
monkey moose mule newt nightingale octopus ostrich ox panda panther peacock pelican penguin pheasant pig pigeon pony
porcupine puma puppy quail rat reindeer rooster salamander scorpion seagull shark skunk snake spider squid starling
stork swallow tiger toad tortoise toucan trout turkey vulture walrus wasp weasel woodpecker yak zebra""".split()
COLOURS = """red blue green yellow white black brown purple orange grey pink silver golden turquoise violet crimson
beige navy olive maroon""".split()
OBJECTS = listed("""lamp, chair, table, clock, book, cup, kettle, mirror, basket, ladder, hammer, rope, lantern, wheel,
drum, flute, map, key, box, coin, ring, bell, candle, blanket, umbrella, scarf, bicycle, radio, camera, guitar, piano,
painting, knife, pot, pan, spoon, bucket, broom, pillow, carpet, vase, bottle, jar, shelf, desk, notebook, pencil,
backpack, wallet, watch, hat, coat, boot, glove, tent, kite, boat, sled, violin, compass, telescope, accordion, anchor,
apron, axe, barometer, bench, bow tie, bracelet, brooch, brush, button, cabinet, calculator, canoe, cello, chessboard,
chest, chisel, cloak, coffee mill, crate, crown, cushion, diary, doll, drill, drawer, envelope, fan, feather, fiddle,
fishing rod, flag, flower pot, fountain pen, frame, funnel, globe, goblet, hairbrush, hammock, harp, helmet,
hourglass, inkwell, iron, jacket, jewel, jug, keyboard, letter, letter opener, locket, loom, magnifying glass, mask,
medal, microscope, mug, music box, necklace, needle, oar, oil lamp, padlock, paintbrush, parasol, pearl, plate,
pocket knife, pocket watch, postcard, puzzle, quilt, raft, rake, razor, rocking chair, rug, ruler, saddle, sail, saw,
saxophone, scale, scissors case, screwdriver, sewing machine, shawl, shield, shovel, skateboard, slipper, soap dish,
spade, statue, stool, suitcase, sundial, surfboard, sweater, sword, tea set, teapot, thermometer, thimble, toolbox,
torch, toy train, tray, trumpet, trunk, typewriter, walking stick, wardrobe, weather vane, whistle, wind chime, wreath,
wrench, yo-yo""")
FOODS = listed("""soup, bread, rice, pasta, cheese, cake, salad, fish, pizza, apple, pear, plum, cherry, honey, tea,
coffee, milk, juice, yoghurt, porridge, curry, stew, pancake, dumpling, noodle, tomato, potato, carrot, onion, pepper,
melon, grape, peach, almond, apricot, artichoke, asparagus, avocado, bacon, bagel, banana, barley, basil, bean,
beetroot, berry jam, biscuit, blueberry, broccoli, brown bread, butter, cabbage, cauliflower, celery, chestnut,
chickpea, chocolate, cinnamon bun, coconut, corn, couscous, cranberry, cream, cucumber, date, egg, fig, fried rice,
garlic, ginger, goulash, granola, green tea, ham, hazelnut, herring, hummus, ice cream, jelly, ketchup, kiwi, lasagne,
leek, lemon, lentil, lettuce, lime, mango, maple syrup, marmalade, meatball, muesli, mushroom, mustard,
nectarine, oat cake, olive, omelette, orange juice, oyster, papaya, parsley, pea soup, peanut butter, pickle,
pineapple, pistachio, plum cake, popcorn, pretzel, pudding, pumpkin, quinoa, radish, raisin, raspberry, ravioli,
rhubarb, risotto, roast beef, rye bread, salmon, sandwich, sausage, sesame, shrimp, sorbet, spaghetti, spinach,
strawberry, sushi, sweet potato, syrup, taco, toast, tofu, truffle, tuna, turnip, vanilla, vegetable pie, waffle,
walnut, watermelon""")
JOBS = listed("""teacher, nurse, baker, farmer, pilot, painter, lawyer, doctor, driver, cook, engineer, gardener,
librarian, carpenter, plumber, dentist, tailor, singer, writer, sailor, mechanic, architect, biologist, chemist,
translator, photographer, waiter, electrician, judge, fisherman, accountant, acrobat, actor, analyst, archivist, artist,
astronomer, auditor, barber, beekeeper, blacksmith, bookbinder, bookseller, botanist, bricklayer, bus driver, butcher,
butler, cashier, chauffeur, clerk, clown, coach, cobbler, composer, conductor, curator, dancer, data analyst,
designer, detective, diplomat, diver, economist, editor, fire fighter, florist, geologist, glass blower, goldsmith,
grocer, guide, hairdresser, historian, inspector, interpreter, jeweller, journalist, juggler, locksmith, magician,
mason, mayor, midwife, milkman, miller, miner, musician, novelist, optician, park ranger, pharmacist, philosopher,
physicist, pianist, poet, police officer, porter, potter, printer, professor, programmer, publisher, receptionist,
roofer, sculptor, secretary, shepherd, shoemaker, social worker, soldier, statistician, surgeon, surveyor, tour guide,
train driver, typist, vet, watchmaker, weaver, welder, wood carver, zookeeper""")
PRODUCTS = listed("""pump, lamp, engine, tyre, sensor, battery, shoe, printer, tractor, window, bicycle, drone, toy,
piano, tent, camera, chair, boat, clock, oven, lens, cable, robot, solar panel, kitchen knife, rain coat, antenna,
bag, belt, blanket, boiler, bolt, bottle, brick, brush, button, camping stove, candle, carpet, cement mixer,
compressor, cooking pot, copper pipe, crane, curtain, desk, display, door lock, drill, elevator, fan, filter, fishing
net, forklift, freezer, fridge, furnace, fuse, garden tool, gear, generator, glass jar, glove, hat, headphone, heater,
helmet, hinge, jacket, kettle, keyboard, ladder, lift, light bulb, magnet, mattress, microscope, mirror, mixer, modem,
motor, mug, nail, oil lamp, paint, paper bag, pencil, phone, pipe, plate, plough, pulley, puzzle, radio, railing,
router, sail, saw, scale, scooter, screw, sewing machine, shelf, ship, sign, ski, sofa, spade, speaker, spring, steel
wire, stove, table, thermometer, tile, towel, toy train, trailer, truck, turbine, umbrella, valve, van, wagon, watch,
water meter, wheel, wind turbine, wool sock, wrench""")
TOPICS = listed("""budget, hiring, roadmap, training, safety, design, release, review, sales, research, travel,
planning, quality, support, marketing, security, testing, logistics, strategy, onboarding, pricing, recruiting,
migration, outage, accessibility, accounting, advertising, archive, audit, backup, branding, capacity, catering,
cleaning, compliance, contract, customer survey, database, delivery, deployment, documentation, efficiency, energy,
ethics, exhibition, export, feedback, fire drill, forecast, fundraising, furniture, hardware, import, incident,
insurance, inventory, investment, kitchen, latency, leadership, legal, licence, maintenance, merger, metrics,
monitoring, network, newsletter, office move, packaging, parking, partner, payroll, performance, privacy, procurement,
product launch, prototype, purchase, recycling, renovation, reporting, retirement, risk, robotics, schedule, shipping,
software, staffing, storage, summer party, supply chain, sustainability, tax, team building, translation, vacation,
warehouse, warranty, website, welcome, workflow, workshop""")
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
CURRENCIES = "dollars euros pounds yen yuan francs rupees pesos kroner won".split()
TONES = "sunny rainy cloudy windy snowy foggy stormy".split()
SYLLABLES = """ba be bi bo bu da de di do du fa fe fi fo ga go gu ha he hi ho ja jo ka ke ki ko ku la le li lo lu ma me
mi mo mu na ne ni no nu pa pe pi po ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo wa we yo za ze zo bran
dor fel gar hel kor lin mar nor pel quin ras sten tor ulf ven wil zan eth ol ar en is or an el um""".split()
# Patterns of letters for words of any shape: c a consonant, v a vowel, . any letter.
LETTER_PATTERNS = tuple(
    tuple(
        {"c": "bcdfghjklmnpqrstvwxyz", "v": "aeiou", ".": "abcdefghijklmnopqrstuvwxyz"}[sign]
        for sign in pattern
    )
    for pattern in "cvc cvcc ccvc cvcv vcvc cvccv cvcvc ccvcc cvvc cvcvcv cvccvc ccvccvc cvcvccv vccvcv cvcvcvc ..... ...... ........".split()
)
# Other words, from which training splices new ones.
COMMON = """able above accept acid across action active admit adult advance advice afraid against agency agree ahead
allow almost alone along already among amount ancient anger angle answer appear approach argue arrive artist aspect
attack attempt author autumn avoid awake badly balance barrel battle beauty become begin behave behind believe belong
benefit between beyond blood board bottom bracket branch brave bread breath bridge brief bright bring broad brother
burden butter button cabin campaign cannot capital captain careful castle catch cause central century certain chain
chamber chance change charge chapter cheap check cheese chicken choice church circle citizen clean clear clever climb
cloth cloud coast collar comfort common concern control corner correct cotton count country courage course cover crash
credit crowd curtain custom damage danger daughter decide deep defend degree deliver demand depend desert design
detail develop differ dinner direct dirty discuss distance divide double doubt dream dress drink drive during eager
early earth easily effect effort eight either elbow electric empty enemy energy engine enjoy enough enter entire equal
escape evening event exact example except expect expert explain extra fabric failure faith familiar famous fancy
fashion father favour feather fellow female fence fever field fight figure finger finish flame flash flight float
flood floor flour follow foreign forest forget formal forward frame freedom frequent fresh friend front frozen further
future gather general gentle giant glass global goal golden govern grain grand grass gravel great grocery ground group
grow guard guess guest guide habit handle happen harbour hardly harvest heaven heavy height hidden history holiday
honest hospital hotel house however human hundred hungry hunter hurry ideal image impact improve income indeed inform
injury inside instead interest invite island jacket join journey judge jungle junior justice kitchen knife knock
knowledge ladder language large later laugh lawyer leader league learn leather leave lecture legal length letter level
liberty library light likely limit listen little living local longer lucky lunch machine magazine major manage manner
marble margin market marry master matter meaning measure medical member memory mental merchant message metal middle
military minute mirror mission mistake mixture model modern moment monkey month moral mother motion mountain movement
muscle music mystery narrow nation nature nearly needle neighbour neither nephew network never night noble noise
normal north nothing notice number nurse object observe obtain ocean offer office often opinion orange ordinary organ
origin outside oven owner oxygen packet painful paint palace panel paper parent parish partner party passage passenger
patient pattern payment peace people perfect perhaps period permit person picture piece planet plant plastic plate
player please plenty pocket poetry point police policy polite portrait position possible powder power practice prefer
prepare present press pretty prevent price priest prince private prize problem process produce profit program promise
proper protect proud provide public pulse punish purchase purpose quality quarter question quick quiet railway random
rather reach ready reason receive recent record reduce refuse region regular relation remain remember remove repair
repeat reply report request rescue respect result return reward rhythm ribbon right river rocket rough round royal
rubber runner safety sailor salary sample satisfy scale scene school science screen search season second secret
section secure select senior sentence separate serious servant service settle seven shadow shallow shape sharp shelter
shine shirt shock short shoulder shower signal silence silk similar simple single sister skill sleep slight slope
smart smile smoke smooth social soldier solid source south special speech spend spirit splendid spring square stable
stage standard stare start station steady steam steel stick still stone storm straight strange stream street strike
string strong student study style subject succeed sudden suffer sugar suggest summer supply support surface surprise
survive sweet swift system tailor talent target taste teach temple tender tennis terrible theatre theory thick thing
thirty thought thread threat throat through thunder ticket tissue title together tomorrow tongue total touch tower
trade travel treasure treat trial triangle trouble trust truth twelve twenty uncle under union unique unit unless
until upper useful usual valley value variety vessel victory village virtue visible visit voice volume voyage wagon
warning waste water wealth weather wedding weekend weight welcome western whole wicked window winter wisdom within
without wonder wooden worker worry worth writer wrong yellow yesterday young youth""".split()
SURNAMES_ZH = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕"
CITIES_ZH = "北京 上海 广州 深圳 杭州 成都 武汉 西安 南京 重庆 天津 苏州 长沙 青岛 大连 厦门 昆明 哈尔滨 济南 福州".split()
FOODS_ZH = "米饭 面条 饺子 豆腐 牛肉 鸡汤 包子 苹果 西瓜 咖啡 绿茶 牛奶 火锅 烤鸭 馒头 葡萄".split()
JOBS_ZH = (
    "老师 医生 护士 司机 厨师 律师 工程师 画家 记者 会计 程序员 警察 农民 歌手 设计师 图书管理员".split()
)
COLOURS_ZH = "红色 蓝色 绿色 黄色 白色 黑色 紫色 橙色 灰色 粉色".split()
# What hasty people put into a question, leave out of it, and set before or after it.
FILLERS = "please now just so well really then also maybe again today quickly actually simply kindly here there".split()
DROPPED = frozenset("a an the of is are do does please me it that can you could What".split())
BEFORE = (
    "Please tell me: ",
    "Hello. ",
    "Hi, ",
    "A question: ",
    "I want to know: ",
    "Now: ",
    "Next: ",
    "Please: ",
    "Well, ",
    "So, ",
    "Tell me, ",
    "One more thing. ",
    "I have a question. ",
    "Sorry, ",
    "Can you help? ",
    "Ok. ",
    "For my notes: ",
    "Dear assistant, ",
)
AFTER = (
    " Thanks.",
    " Thank you.",
    " Please.",
    " I need it.",
    " Be quick.",
    " I want to know.",
    " Can you tell me?",
    " Please tell me.",
    " Do you know?",
    " It is for my notes.",
    " I have to know it.",
    " Tell me.",
)
BEFORE_ZH = (
    "请问，",
    "老师，",
    "你好，",
    "我想问：",
    "我想知道：",
    "请教一下，",
    "麻烦问一下，",
    "那么，",
    "再问一个：",
    "对了，",
    "请告诉我，",
    "帮个忙：",
    "我是新手，",
    "下一个问题：",
    "不好意思，",
)
AFTER_ZH = (
    "谢谢。",
    "请回答。",
    "请告诉我。",
    "我想知道。",
    "麻烦了。",
    "急用。",
    "能说说吗？",
    "你知道吗？",
    "请说明。",
    "多谢！",
)
